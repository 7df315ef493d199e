"""The shell's job that this program is: stopped as Ctrl+Z stops any other, and gone on with by ``fg``."""

from __future__ import annotations

import os
import signal


def can_stop() -> bool:
    """Whether a shell is there that could go on with it: the first program of a terminal would stand still for ever."""
    return hasattr(os, "getsid") and os.getpgrp() != os.getsid(0)


def stop() -> None:
    """Stop the whole job, with the ``make`` or the script that it was started by, and return when it goes on.

    The terminal must have been given back: a shell takes it as soon as one of the job is stopped.
    """
    os.killpg(os.getpgrp(), signal.SIGSTOP)
