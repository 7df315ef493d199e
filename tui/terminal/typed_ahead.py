"""What is typed before the application reads it: kept for the prompt, and not shown twice."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_MOST = 65_536  # bytes that are taken from before the first frame


@dataclass(frozen=True, slots=True)
class TypedAhead:
    """How the terminal was found.

    Attributes:
        text: what was typed before the first frame, with carriage returns for Enter.
        attributes: of the terminal, as ``termios.tcgetattr`` has them; None where there is none.
    """

    text: str = ""
    attributes: list[Any] | None = None


NOTHING = TypedAhead()


@contextlib.contextmanager
def typed_ahead() -> Iterator[TypedAhead]:
    """Give the terminal to an application that does not read it yet: no echo, and each key waits as it was pressed.

    A terminal that edits lines makes a line feed of Enter, which cannot be told from Ctrl+J any more. So what was typed until
    now, when only Enter makes one, is taken out of its buffer. Ctrl+C still interrupts. At the end the terminal is as it was.
    """
    try:
        import termios
    except ImportError:  # not on this system
        yield NOTHING
        return
    try:
        number = sys.__stdin__.fileno() if sys.__stdin__ is not None else -1
        before = termios.tcgetattr(number)
    except (OSError, ValueError, termios.error):
        yield NOTHING
        return
    try:
        termios.tcsetattr(number, termios.TCSANOW, _raw(before))
        yield TypedAhead(_waiting(number), before)
    finally:
        with contextlib.suppress(termios.error, OSError):
            termios.tcsetattr(number, termios.TCSANOW, before)


def _raw(attributes: list[Any]) -> list[Any]:
    """Keys as they are pressed, but for those that interrupt."""
    import termios

    given, out, control, local, fast_in, fast_out, characters = attributes
    given &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR | termios.IXON | termios.IXOFF)
    local &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
    characters = [*characters]
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    characters[termios.VSUSP] = b"\0"  # a program that is not there yet cannot give the terminal back: Ctrl+Z waits as well
    return [given, out, control, local, fast_in, fast_out, characters]


def _waiting(number: int) -> str:
    """What a terminal that edited lines has kept. A null stands for an end of the input (Ctrl+D)."""
    data = b""
    with contextlib.suppress(OSError):
        while len(data) < _MOST and select.select([number], [], [], 0)[0] and (some := os.read(number, 4096)):
            data += some
    return data.decode(errors="ignore").replace("\0", "").replace("\n", "\r")
