"""The changes of a file: numbered lines with their marks, folded when they are many.

Source of what is read: POSIX.1-2017, diff, "Diff -u output format".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from typing import ClassVar, Literal

from textual.app import RenderResult
from textual.content import Content, Span
from textual.geometry import Size
from textual.widget import Widget

from agent.text import display
from tui.widgets.folding import line_spans

LineKind = Literal["same", "added", "removed", "gap", "note"]

_MOST = 400  # lines that are laid out even when everything is to be seen
_LONGEST = 1_000  # characters of a line that are laid out
_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@(.*)")
MARKS = {"added": "+", "removed": "-", "same": " ", "gap": " ", "note": " "}


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One line of a diff.

    Attributes:
        kind: same, added or removed; gap, lines between the hunks that are not in the diff; note, a word about the line before.
        text: without its mark and its newline; of a gap, what the hunk's head says of the place.
        number: in the new file, or in the old one for a removed line; from 1; None for gap and note.
        changed: the stretch of ``text`` that differs from the line that it replaces or is replaced by.
    """

    kind: LineKind
    text: str
    number: int | None = None
    changed: tuple[int, int] | None = None


class DiffView(Widget):
    """A unified diff. ``opened`` shows all of it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "diff--added", "diff--removed", "diff--same", "diff--number", "diff--note", "diff--changed",
    }  # fmt: skip

    def __init__(self, diff: str, *, fold_after: int = 12, cut: int = 0) -> None:
        """
        Args:
            diff: of one file; untrusted.
            fold_after: lines that are shown until it is opened.
            cut: lines that are not in ``diff`` any more.
        """
        super().__init__()
        self.lines, self._fold_after, self._opened, self._cut = parse(diff), fold_after, False, cut
        self._laid: tuple[int, Content] = (0, Content(""))

    @property
    def opened(self) -> bool:
        return self._opened

    @opened.setter
    def opened(self, opened: bool) -> None:
        self._opened = opened
        self._laid = (0, Content(""))
        self.refresh(layout=True)

    @property
    def folds(self) -> bool:
        """Whether opening it shows more."""
        return len(self.lines) > self._fold_after + 1

    @property
    def summary(self) -> str:
        added, removed = count(self.lines)
        return f"+{added:,} -{removed:,}"

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return container.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return self._at(width).plain.count("\n") + 1

    def render(self) -> RenderResult:
        return self._at(self.content_size.width)

    def _at(self, width: int) -> Content:
        if self._laid[0] != width:
            self._laid = (width, Content("\n").join(self._rows(width)))
        return self._laid[1]

    def _rows(self, width: int) -> list[Content]:
        shown = self.lines[:_MOST] if self._opened or not self.folds else self.lines[: self._fold_after]
        digits = len(str(max((line.number or 0 for line in shown), default=0)))
        rows = [row for line in shown for row in _row(line, digits, max(8, width))]
        left = len(self.lines) - len(shown)
        if left and not self._opened:
            rows.append(Content.styled(f"… {left:,} more lines (Enter opens)", ".diff--note"))
        elif left + self._cut:
            rows.append(Content.styled(f"… {left + self._cut:,} more lines are not shown", ".diff--note"))
        return rows


def _row(line: DiffLine, digits: int, width: int) -> list[Content]:
    """A line of a diff as one or more rows of the screen, the text beside its number."""
    if line.kind in ("gap", "note"):
        sign = "⋯" if line.kind == "gap" else "\\"
        return [Content.styled(f"{sign:>{digits}} {display(line.text[:width])}"[:width], ".diff--note")]
    text, changed = line.text[:_LONGEST], line.changed
    shown = display(text, lines=True).replace("\t", "    ")
    if len(line.text) > _LONGEST:
        shown += "…"
    spans = []
    if changed is not None and shown == text:  # places move when something had to be shown otherwise
        spans = [Span(min(changed[0], len(text)), min(changed[1], len(text)), ".diff--changed")]
    content = Content(shown, spans=spans)
    style, room = f".diff--{line.kind}", width - digits - 3
    rows = []
    for at, (start, end) in enumerate(line_spans(shown, room)):
        number = Content.styled(f"{line.number if at == 0 else '':>{digits}} ", ".diff--number")
        mark = MARKS[line.kind] if at == 0 else " "
        part = content[start:end]
        part = part.pad_right(max(0, room - part.cell_length))
        rows.append(number + (Content(f"{mark} ") + part).stylize_before(style))
    return rows


def parse(diff: str) -> tuple[DiffLine, ...]:
    """The lines of a unified diff of one file, without its heads. Never raises: what is no diff has no lines."""
    lines = _marked(diff)
    i = 0
    while i < len(lines):
        removed = _run(lines, i, "removed")
        added = _run(lines, i + removed, "added")
        if removed == added > 0:
            _pair(lines, i, removed)
        i += max(1, removed + added)
    return tuple(lines)


def count(lines: tuple[DiffLine, ...]) -> tuple[int, int]:
    """How many lines were added and removed."""
    kinds = [line.kind for line in lines]
    return kinds.count("added"), kinds.count("removed")


def _marked(diff: str) -> list[DiffLine]:
    # The counts in a hunk's head say where it ends, so that a removed line "-- x" is not taken for the head of a file.
    found: list[DiffLine] = []
    old = new = old_left = new_left = 0
    for line in diff.removesuffix("\n").split("\n"):
        mark, text = line[:1], line[1:]
        if old_left > 0 or new_left > 0:
            if mark == "+" and new_left > 0:
                found.append(DiffLine("added", text, new))
                new, new_left = new + 1, new_left - 1
                continue
            if mark == "-" and old_left > 0:
                found.append(DiffLine("removed", text, old))
                old, old_left = old + 1, old_left - 1
                continue
            if mark in (" ", "") and old_left > 0 and new_left > 0:
                found.append(DiffLine("same", text, new))
                old, new, old_left, new_left = old + 1, new + 1, old_left - 1, new_left - 1
                continue
        if mark == "\\" and found:
            found.append(DiffLine("note", text.strip()))
        elif head := _HUNK.fullmatch(line):
            old, new = int(head[1]), int(head[3])
            old_left, new_left = int(head[2] or 1), int(head[4] or 1)
            if found or max(old, new) > 1:
                found.append(DiffLine("gap", head[5].strip()))
    return found


def _run(lines: list[DiffLine], start: int, kind: LineKind) -> int:
    return sum(1 for _ in takewhile(lambda line: line.kind == kind, islice(lines, start, None)))


def _pair(lines: list[DiffLine], start: int, length: int) -> None:
    for i in range(start, start + length):
        before, after = lines[i], lines[i + length]
        head, tail = _common(before.text, after.text)
        # Lines that share little are other lines: to mark most of them would say nothing.
        if 2 * (head + tail) >= max(len(before.text), len(after.text)):
            lines[i] = replace(before, changed=(head, len(before.text) - tail))
            lines[i + length] = replace(after, changed=(head, len(after.text) - tail))


def _common(one: str, other: str) -> tuple[int, int]:
    """How many characters two texts share at their beginning and, beyond those, at their end."""
    shorter = min(len(one), len(other))
    head = next((i for i in range(shorter) if one[i] != other[i]), shorter)
    room = shorter - head
    tail = next((i for i in range(room) if one[-1 - i] != other[-1 - i]), room)
    return head, tail
