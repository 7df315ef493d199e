"""A terminal that goes away must take the chat with it.

Textual's input thread reads a terminal that is gone again and again without end, on a whole core, and keeps the process from
ending. So a thread of our own waits for the end of the terminal; the system wakes it, and until then it costs nothing.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable

STATUS = 129  # as a shell reports a program that SIGHUP has ended


def watch(gone: Callable[[], object], *, leave: Callable[[int], object] = os._exit) -> bool:
    """Begin to wait for the end of this process's terminal. Returns whether there is one.

    Args:
        gone: is called then, in a thread of its own: the last chance to write something.
        leave: ends the process afterwards.
    """
    try:
        number = sys.__stdin__.fileno() if sys.__stdin__ is not None else -1
        if not os.isatty(number) or not hasattr(select, "poll"):
            return False
    except (OSError, ValueError):
        return False
    poll = select.poll()
    poll.register(number, 0)  # nothing but the end, which is always told

    def wait() -> None:
        while not any(what & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, what in poll.poll()):
            pass
        try:
            gone()
        finally:
            leave(STATUS)

    threading.Thread(target=wait, name="hangup", daemon=True).start()
    return True
