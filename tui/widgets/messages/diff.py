"""The changes of a file: numbered lines with their marks, folded when they are many."""

from __future__ import annotations

from typing import ClassVar

from textual.app import RenderResult
from textual.content import Content, Span
from textual.geometry import Size
from textual.widget import Widget

from agent.text import display
from tui.widgets.folding import line_spans
from tui.widgets.messages.diff_lines import DiffLine, count, parse

_MOST = 400  # lines that are laid out even when everything is to be seen
_LONGEST = 1_000  # characters of a line that are laid out
_MARKS = {"added": "+", "removed": "-", "same": " ", "gap": " ", "note": " "}


class DiffView(Widget):
    """A unified diff. ``opened`` shows all of it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "diff--added", "diff--removed", "diff--same", "diff--number", "diff--note", "diff--changed",
    }  # fmt: skip

    def __init__(self, diff: str, *, fold_after: int = 12, opened: bool = False, cut: int = 0) -> None:
        """Prepare.

        Args:
            diff: of one file; untrusted.
            fold_after: lines that are shown until it is opened.
            opened: whether all is shown.
            cut: lines that are not in ``diff`` any more.
        """
        super().__init__()
        self.lines, self._fold_after, self._opened, self._cut = parse(diff), fold_after, opened, cut
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
        mark = _MARKS[line.kind] if at == 0 else " "
        part = content[start:end]
        part = part.pad_right(max(0, room - part.cell_length))
        rows.append(number + (Content(f"{mark} ") + part).stylize_before(style))
    return rows
