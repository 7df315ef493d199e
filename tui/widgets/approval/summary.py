"""Exactly what a tool would do, whole: folded to the width, the risky places marked, and below them why."""

from __future__ import annotations

import itertools
import re

from textual.content import Content, Span
from textual.geometry import Size
from textual.strip import Strip
from textual.visual import Visual
from textual.widget import Widget

from agent.approval.policy import ApprovalRequest
from agent.text import display
from tui.widgets.folding import fit, line_spans

Risk = tuple[int, int, str]

_MOST = 40  # reasons that are listed; the places are marked all the same
_SIGNS = re.compile(r"[\u2400-\u2426]+|<U\+[0-9A-F]{4,6}>|<[0-9A-F]{2}>")  # how agent.text shows what cannot be seen
_MIXED = re.compile(r"[^\W\d_]+")
# Greek, Cyrillic, Cherokee, full width, mathematical.
_LOOKALIKE = re.compile(r"[\u0370-\u052f\u13a0-\u13ff\uff21-\uff5a\U0001d400-\U0001d7ff]")


class ApprovalSummary(Widget):
    """A widget that draws only the lines that are seen, so that a megabyte to be approved costs nothing."""

    def __init__(self, request: ApprovalRequest) -> None:
        super().__init__()
        decision = request.decision
        self.summary = decision.summary.replace("\t", "\u2409")  # one cell, so that no place in it moves
        self.risks = all_risks(decision.summary, decision.risks)
        said = [*_reasons(self.summary, self.risks), display(decision.reason)]
        if request.tool.unconfined and request.tool.unconfined != decision.reason:
            said.append(display(request.tool.unconfined))
        self._notes = Content("\n".join(line for line in said if line))
        self._places: list[tuple[int, int]] = []
        self._said: list[Content] = []
        self._width = 0

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
        if width != self._width:
            self._width, self._places = width, line_spans(self.summary, width)
            self._said = [line.stylize_before("italic") for line in self._notes.wrap(max(2, width))]

    def _row(self, y: int) -> Content:
        if y >= len(self._places):
            return self._said[y - len(self._places)] if y < len(self._places) + len(self._said) else Content("")
        start, end = self._places[y]
        here = [(max(a, start) - start, min(b, end) - start) for a, b, _ in self.risks if a < end and b > start]
        return Content(self.summary[start:end], spans=[Span(a, b, "reverse underline") for a, b in here])


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
