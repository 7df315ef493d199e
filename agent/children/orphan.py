"""A child process that its parent's death does not leave behind, not even one that is stopped and can look at nothing itself."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

_PR_SET_PDEATHSIG = 1


def end_with_parent(number: int, parent: int | None = None) -> None:
    """Have the kernel send this process a signal when its parent dies (prctl(2), PR_SET_PDEATHSIG; Linux and Android).

    The kernel also sends it when only the thread ends that started this process. So SIGKILL is for a child that ends before
    that thread does, whatever happens; and SIGCONT for one that ends by itself once it is awake, since its input has ended.

    Args:
        number: the signal.
        parent: its process id, for a child that reads nothing from it: where it is dead already, this process ends at once.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), *[ctypes.c_ulong(0)] * 3)
    if parent is not None and os.getppid() != parent:
        os._exit(1)
