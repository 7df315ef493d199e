"""A child that serves its parent over the socket that is its standard input: how it begins, ends, and listens meanwhile."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Collection
from typing import Any

from agent.children.orphan import end_with_parent
from agent.children.wire import Wire

_LOOK_SECONDS = 0.02  # how often a long computation looks whether it is still wanted


class Served:
    """What computes for the parent at the other end of the wire, and listens while it does."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._heard: list[dict[str, Any]] = []  # what came during a computation and waits for its turn
        self._looked = 0.0

    def _unwanted(self, numbers: Collection[int]) -> bool:
        """Whether the parent is gone, or has cancelled one of these requests; asked from inside a computation, very often."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return False
        self._looked = now
        try:
            while (message := self.wire.receive_now()) is not None:
                self._heard.append(message)
        except EOFError:
            return True
        return any(m.get("op") == "cancel" and m.get("id") in numbers for m in self._heard)


def serve(work: Callable[[], None], *, last: Callable[[], None] = lambda: None) -> None:
    """Do what the parent asks until it is gone, then end this process: nothing is worth freeing.

    Args:
        work: returns, or raises ConnectionError, when the parent is gone.
        last: what must still be done then.
    """
    end_with_parent(signal.SIGKILL)  # one that has died before is found out by the end of the socket
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and says what is to be done
    try:
        with contextlib.suppress(ConnectionError):
            work()
    finally:
        sys.stderr.flush()
    last()
    os._exit(0)
