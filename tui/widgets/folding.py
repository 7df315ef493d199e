"""Long text in a small place: what is shown of it and how much is not, without walking through all of it."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from textual.content import Content

from agent.text import display
from tui.markdown.wrap import fold as full_rows


@dataclass(frozen=True, slots=True)
class Folded:
    """A beginning of a text.

    Attributes:
        text: safe to print.
        lines: whole lines that are not shown.
        characters: that are not shown, when the cut is within a line; otherwise 0.
    """

    text: str
    lines: int = 0
    characters: int = 0

    @property
    def more(self) -> str:
        """What is not shown, in words; empty when everything is."""
        if self.characters:
            return f"{self.characters:,} more character{'s' if self.characters != 1 else ''}"
        return f"{self.lines:,} more line{'s' if self.lines != 1 else ''}" if self.lines else ""


def fold(text: str, lines: int, characters: int) -> Folded:
    """The first ``lines`` lines of a text, and at most ``characters`` characters of it. One line more is shown instead of a word
    that says that one is missing."""
    text = text.rstrip("\n")
    end = -1
    for _ in range(lines + 1):
        end = text.find("\n", end + 1)
        if end < 0:
            end = len(text)
            break
    else:
        end = text.rfind("\n", 0, end)
    if end > characters:
        return Folded(display(text[:characters], lines=True), 0, len(text) - characters)
    return Folded(display(text[:end], lines=True), text.count("\n", end), 0)


def line_spans(text: str, width: int) -> list[tuple[int, int]]:
    """Where to break a text so that every piece fits ``width`` cells: (start, end) of each. Nothing is trimmed or left out,
    so that the pieces say exactly what the text says; newlines end a piece and are not in it."""
    found: list[tuple[int, int]] = []
    at = 0
    for line in text.split("\n"):
        found += [(at + start, at + end) for start, end in full_rows(line, max(2, width))]
        at += len(line) + 1
    return found


def fit(text: str, width: int, *, keep_end: bool = False) -> str:
    """One line of safe text in ``width`` cells, with an ellipsis where something is missing."""
    text = display(text[:500] if not keep_end else text[-500:])
    if cell_len(text) <= width:
        return text
    if not keep_end:
        return Content(text).truncate(max(0, width), ellipsis=True).plain
    while text and cell_len(text) > width - 1:
        text = text[1:]
    return "\u2026" + text
