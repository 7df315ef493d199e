"""The shell's job that this program is: stopped as Ctrl+Z stops any other, and gone on with by ``fg``."""

from __future__ import annotations

import os
import signal
import sys


def can_stop() -> bool:
    """Whether a shell is there that could go on with it: the first program of a terminal would stand still for ever."""
    return hasattr(os, "getsid") and os.getpgrp() != os.getsid(0)


def stop() -> None:
    """Stop the whole job, with the ``make`` or the script that it was started by, and return when it goes on.

    The terminal must have been given back: a shell takes it as soon as one of the job is stopped. After ``bg`` the job stops
    again: with its screen there is nothing to do in the background.
    """
    # A word that comes by another thread may come late: when the terminal was taken already, and would be taken twice.
    answer = signal.signal(signal.SIGCONT, signal.SIG_IGN)
    try:
        while True:
            os.killpg(os.getpgrp(), signal.SIGSTOP)
            if in_foreground():
                return
    finally:
        signal.signal(signal.SIGCONT, answer)


def in_foreground() -> bool:
    """Whether the terminal listens to this job; also where there is no terminal any more."""
    try:
        return os.tcgetpgrp(sys.__stdin__.fileno()) == os.getpgrp()  # type: ignore[union-attr]
    except (OSError, ValueError, AttributeError):
        return True
