"""The first frame, painted before Textual is loaded: loading it takes most of a start, and a person need not look at nothing."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
from collections.abc import Iterator
from typing import TextIO

_HINT = "Ask something, or / for commands"
_NARROW = 60  # columns; below, the prompt's hint is short, as the prompt has it


@contextlib.contextmanager
def first_paint(out: TextIO | None = None) -> Iterator[None]:
    """Paint the frame; the application paints over it. A paste is marked as one from here on.

    The terminal is as it was before when the block raises.
    """
    out = out or sys.__stderr__  # where Textual paints
    assert out is not None
    with _told_to_leave():
        out.write("\x1b[?1049h\x1b[?25l\x1b[?2004h" + frame(*shutil.get_terminal_size()))
        out.flush()
        try:
            yield
        except BaseException:
            out.write("\x1b[?2004l\x1b[?25h\x1b[?1049l")
            out.flush()
            raise


def frame(width: int, height: int) -> str:
    """The sequences that paint it: the line above the prompt, the prompt, and that it begins. Without colours."""
    short = height < 20
    below = 1 if short else 2  # the status line, and the footer where there is one
    prompt = max(2, height - below)
    lead = "" if width < _NARROW else " "
    hint = "Ask something, or /" if width < _NARROW else _HINT
    lines = {
        prompt - 1: "─" * width,
        prompt: f"{lead}> {hint}"[:width],
        prompt + 1: f"{lead}starting"[:width],
    }
    if not short:
        lines[1] = " New conversation"[:width]
    return "\x1b[2J" + "".join(f"\x1b[{row};1H{text}" for row, text in sorted(lines.items()) if 1 <= row <= height)


@contextlib.contextmanager
def _told_to_leave() -> Iterator[None]:
    """A signal to end is an exception meanwhile, so that the terminal is given back."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
