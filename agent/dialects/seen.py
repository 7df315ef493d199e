"""What a template rendered for a call that nobody else would make, and the marks in it that all styles have."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from agent.dialects.base import Dialect

_TAG = re.compile(r"\s*(<[^<>\s]+>|\[[A-Z_]+\])")


@dataclass(frozen=True, slots=True)
class ProbeCall:
    """A call that no template contains by itself: of one argument with a text and one with a number."""

    name: str
    key: str
    value: str
    id: str
    number_key: str = "zfqn"
    number: int = 73219

    @property
    def arguments(self) -> dict[str, Any]:
        return {self.key: self.value, self.number_key: self.number}


FIRST = ProbeCall("zfqx_first", "zfqa", "Zfqalpha", "zfqid0001")
SECOND = ProbeCall("zfqx_other", "zfqb", "Zfqomega", "zfqid0002")


@dataclass(frozen=True, slots=True)
class Seen:
    """Rendered calls with whatever stands around them: ``one`` of FIRST, ``two`` of FIRST and SECOND, None if refused."""

    one: str
    two: str | None


class Span(NamedTuple):
    """Where a JSON object lies in a text, and what it says."""

    start: int
    end: int
    value: Mapping[str, Any]


def object_around(text: str, inside: int, key: str = "") -> Span | None:
    """The smallest JSON object that spans a position and, when ``key`` is given, has that key."""
    decoder = json.JSONDecoder()
    start = text.rfind("{", 0, inside) if inside >= 0 else -1
    for _ in range(8):
        if start < 0:
            return None
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            value, end = None, 0
        if end > inside and isinstance(value, dict) and (not key or key in value):
            return Span(start, end, value)
        start = text.rfind("{", 0, start)
    return None


def numbered(mark: str, call: ProbeCall) -> str:
    """A mark of a first call, with holes where its name and its number are."""
    mark = mark.replace(call.name, "{name}")
    return re.sub(r"(?<![\w{])([01])(?![\w}])", r"{\1}", mark)


def described(style: Any, before: str, after: str, two: tuple[str, str] | None, **fields: Any) -> Dialect:
    """A dialect with the marks around a call, shared out between the call and the section.

    Args:
        style: of the dialect.
        before, after: what stands before and after a single call.
        two: where there may be two calls, what stands between them and after both.
        fields: of the dialect.
    """
    call_open, call_close = before, _first_mark(after) + _more_marks(after[len(_first_mark(after)) :])
    section_open = separator = section_close = ""
    if two is not None:
        middle, after = two
        call_open = whole_marks(common_end(before, middle), before)
        middle = middle[: len(middle) - len(call_open)]
        call_close = common_start(after, middle)
        separator = middle[len(call_close) :]
        section_open = before[: len(before) - len(call_open)]
        # Only where something opened a section does something close it; the rest is the end of the turn.
        section_close = _first_mark(after[len(call_close) :]) if section_open.strip() else ""
    # White space before a first call belongs to the words before it, or to the separator.
    section_open = section_open.lstrip()
    if not section_open:
        start = len(call_open) - len(call_open.lstrip())
        separator, call_open = separator + call_open[:start], call_open[start:]
    opening = (section_open + call_open).strip()
    first = _TAG.match(opening)
    trigger = first[1] if first else opening
    return Dialect(
        name=style, style=style, trigger=trigger or '{"' + fields.get("name_key", ""), only_at_start=not trigger,
        section_open=section_open, call_open=call_open, call_close=call_close, separator=separator, section_close=section_close,
        parallel=two is not None, **fields,
    )  # fmt: skip


def whole_marks(end: str, text: str) -> str:
    """The end of a text without the part of a mark that it begins in."""
    start = len(text) - len(end)
    opened = text.rfind("<", 0, start)
    if opened > text.rfind(">", 0, start) and (closed := end.find(">")) >= 0:
        return end[closed + 1 :]
    return end


def common_start(a: str, b: str) -> str:
    length = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:length]


def common_end(a: str, b: str) -> str:
    return common_start(a[::-1], b[::-1])[::-1]


def _more_marks(text: str) -> str:
    """The closing tags at the start of a text."""
    found = re.match(r"(?:\s*(?:</[^<>\s]+>|\[/[A-Z_]{2,30}\]))*", text)
    return found.group() if found else ""


def _first_mark(text: str) -> str:
    """What closes something at the start of a text: one mark in brackets of any kind, with the white space before it."""
    found = re.match(r"\s*(?:[\]}]\s*)*(?:<[^<>]{1,40}>|\[/?[A-Z_]{2,30}\])?", text)
    return found.group() if found else ""
