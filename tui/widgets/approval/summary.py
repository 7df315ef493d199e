"""Exactly what a tool would do, whole: folded to the width, the risky places marked, and below them why."""

from __future__ import annotations

import itertools
import re
from functools import lru_cache
from typing import ClassVar

from textual import events
from textual.content import Content, Span
from textual.geometry import Size
from textual.strip import Strip
from textual.visual import Visual
from textual.widget import Widget

from agent.approval.policy import ApprovalRequest
from agent.approval.question import asked_about, middle_cut, reasons
from agent.text import display
from tui.widgets.folding import fit, line_spans
from tui.widgets.messages.diff import MARKS, DiffLine, parse

Risk = tuple[int, int, str]

_MOST = 40  # reasons that are listed; the places are marked all the same
_MOST_DIFF = 90  # lines of a change that are shown until all of it is opened
_LONGEST = 1_000  # characters of one of them, until then
_NUMBERED = 50  # columns from which there is room for the lines' numbers
_SIGNS = re.compile(r"[\u2400-\u2426]+|<U\+[0-9A-F]{4,6}>|<[0-9A-F]{2}>")  # how agent.text shows what cannot be seen
_MIXED = re.compile(r"[^\W\d_]+")
# Greek, Cyrillic, Cherokee, full width, mathematical.
_LOOKALIKE = re.compile(r"[\u0370-\u052f\u13a0-\u13ff\uff21-\uff5a\U0001d400-\U0001d7ff]")
_MARKED = "reverse underline"


class ApprovalSummary(Widget):
    """A widget that draws only the lines that are seen, so that a megabyte to be approved costs nothing.

    A change that the tool has previewed is a diff; the middle of a long one is left out until it is opened.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "diff--added", "diff--removed", "diff--same", "diff--number", "diff--note", "diff--changed",
    }  # fmt: skip

    def __init__(self, request: ApprovalRequest) -> None:
        super().__init__()
        decision = request.decision
        whole = decision.summary.replace("\t", "\u2409")  # one cell, so that no place in it moves
        self.risks = all_risks(decision.summary, decision.risks)
        said = [*_reasons(whole, self.risks), *reasons(request)]
        self._notes = Content("\n".join(said))
        self.summary, self._marked, self._change = whole, self.risks, 0
        self._lines: tuple[DiffLine, ...] = ()
        if request.preview is not None:
            self.summary = asked_about(request).replace("\t", "\u2409")
            self._marked, self._change = all_risks(self.summary, ()), len(display(request.preview.change))
            self._lines = parse(request.preview.diff)
        self._digits = len(str(max((line.number or 0 for line in self._lines), default=0)))
        self._opened = False
        # Row by row: of which text (-1 the summary, else a line of the change), and from where to where in it.
        self._places: list[tuple[int, int, int]] = []
        self._said: list[Content] = []
        self._width = 0
        self._text = lru_cache(maxsize=512)(self._text_of)

    @property
    def cut(self) -> bool:
        """Whether opening it shows more."""
        return not self._opened and (
            len(self._lines) > _MOST_DIFF or any(len(line.text) > _LONGEST for line in self._lines)
        )  # fmt: skip

    def open(self) -> None:
        """Show all of a change."""
        if self.cut:
            self._opened = True
            self._width = 0
            self._text.cache_clear()
            self.refresh(layout=True)

    def on_click(self, event: events.Click) -> None:
        self.open()

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return container.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        self._lay(width)
        return len(self._places) + len(self._said)

    def render_line(self, y: int) -> Strip:
        width = self.content_size.width
        self._lay(width)
        row = self._row(y)
        return Visual.to_strips(self, row, width, 1, self.visual_style, apply_selection=False, pad=True)[0]

    def _lay(self, width: int) -> None:
        if width == self._width:
            return
        self._width = width
        self._places = [(-1, start, end) for start, end in line_spans(self.summary, width)]
        left_out = middle_cut(len(self._lines), len(self._lines) if self._opened else _MOST_DIFF)
        for i in (i for i in range(len(self._lines)) if not left_out[0] < i < left_out[1]):
            if i == left_out[0] < left_out[1]:
                self._places.append((i, 0, 0))
                continue
            text, room = self._text(i), self._room
            short = text.isascii() and len(text) <= room
            self._places += [(i, 0, len(text))] if short else [(i, start, end) for start, end in line_spans(text, room)]
        self._said = [line.stylize_before("italic") for line in self._notes.wrap(max(2, width))]

    @property
    def _room(self) -> int:
        """Columns of a line of the change, beside its number and its mark."""
        return max(8, self._width - 2 - (self._digits + 1 if self._width >= _NUMBERED else 0))

    def _row(self, y: int) -> Content:
        if y >= len(self._places):
            return self._said[y - len(self._places)] if y < len(self._places) + len(self._said) else Content("")
        i, start, end = self._places[y]
        if i >= 0:
            return self._diff_row(i, start, end)
        here = [(max(a, start) - start, min(b, end) - start) for a, b, _ in self._marked if a < end and b > start]
        spans = [Span(a, b, _MARKED) for a, b in here]
        if self._change and start >= len(self.summary) - self._change:
            spans.append(Span(0, end - start, "bold"))
        return Content(self.summary[start:end], spans=spans)

    def _text_of(self, i: int) -> str:
        """A line of the change as it is shown."""
        line = self._lines[i]
        if line.kind == "gap":
            return f"\u22ef {display(line.text)}"
        over = len(line.text) - _LONGEST
        text = line.text if self._opened or over <= 0 else f"{line.text[:_LONGEST]}\u2026 [{over:,} more characters]"
        return display(text, lines=True).replace("\t", "    ")

    def _diff_row(self, i: int, start: int, end: int) -> Content:
        if not self._opened and len(self._lines) > _MOST_DIFF and i == (left := middle_cut(len(self._lines), _MOST_DIFF))[0]:
            return Content.styled(f"\u22ef {left[1] - left[0]:,} lines are left out: o opens them", ".diff--note")
        line, text = self._lines[i], self._text(i)
        if line.kind in ("gap", "note"):
            return Content.styled(f"{' ' * 2 if line.kind == 'note' else ''}{text[start:end]}", ".diff--note")
        spans = [
            Span(max(m.start(), start) - start, min(m.end(), end) - start, _MARKED) for m in _SIGNS.finditer(text, start, end)
        ]
        if line.changed is not None and text == line.text:  # places move when something had to be shown otherwise
            a, b = line.changed
            spans.append(Span(max(a, start) - start, max(0, min(b, end) - start), ".diff--changed"))
        part = Content(text[start:end], spans=[span for span in spans if span.start < span.end])
        first = start == 0
        row = (Content(f"{MARKS[line.kind] if first else ' '} ") + part).stylize_before(f".diff--{line.kind}")
        if self._width < _NUMBERED:
            return row
        return Content.styled(f"{line.number if first else '':>{self._digits}} ", ".diff--number") + row


def all_risks(summary: str, risks: tuple[Risk, ...]) -> tuple[Risk, ...]:
    """The risks that the agent found, kept within the summary, and the letters that deceive the eye."""
    found = [(max(0, start), min(end, len(summary)), why) for start, end, why in risks]
    taken = {start for start, _, _ in found}
    signs = (m.span() for m in itertools.islice(_SIGNS.finditer(summary), 1_000))
    found += [(start, end, "stands for what cannot be seen") for start, end in signs if start not in taken]
    for word in _MIXED.finditer(summary):
        if not word[0].isascii() and _LOOKALIKE.search(word[0]) and re.search("[A-Za-z]", word[0]):
            found.append((word.start(), word.end(), "mixes letters that look alike"))
    return tuple(sorted(r for r in found if r[0] < r[1]))


def _reasons(summary: str, risks: tuple[Risk, ...]) -> list[str]:
    lines = list(dict.fromkeys(f"! {display(why)}: {fit(summary[start:end], 30)}" for start, end, why in risks))
    more = len(lines) - _MOST
    return [*lines[:_MOST], *([f"! and {more:,} more places"] if more > 0 else [])]
