"""From one rendered call, or two, to the dialect in which it is written; no list of models, only the text.

The idea to render small conversations that differ in one thing is that of llama.cpp's template analysis (docs/autoparser.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from agent.dialects import families
from agent.dialects.base import Dialect

# What a template says of a format whose calls it does not write. The first that is found counts.
_FINGERPRINTS: dict[str, Dialect] = {
    **dict.fromkeys(("<|tool_call_start|>", "<|tool_list_start|>", "List of tools: ["), families.LFM2),
    "<start_function_call>": families.FUNCTION_GEMMA, "<｜tool▁calls▁begin｜>": families.DEEPSEEK, "<|/tool|>": families.PHI4,
    "<|tool_call>call:": families.GEMMA4, "<|tool_call|>": families.GRANITE3, "[CALL_ID]": families.MISTRAL_SMALL,
    "[ARGS]": families.MINISTRAL, "[TOOL_CALLS]": families.MISTRAL_NEMO, "<tool_call>\\n<function=": families.QWEN_CODER,
    "<tool_call>": families.HERMES,
}  # fmt: skip


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


def by_fingerprint(source: str, tools_shown: bool) -> Dialect:
    """The dialect that a template's text speaks of; the generic one where it speaks of none."""
    for mark, dialect in _FINGERPRINTS.items():
        if mark in source:
            return dialect
    return families.HERMES if tools_shown else families.GENERIC


def difference(word: str, other: str) -> tuple[str, str]:
    """What stands in ``other`` in place of a word, and what stands before it in both; no mark is cut in two."""
    before = _common_start(word, other)
    if (opened := before.rfind("<")) > before.rfind(">"):
        before = before[:opened]
    rest = other[len(before) :]
    after = _common_end(word[len(before) :], rest)
    if (closed := after.find(">")) >= 0 and "<" not in after[:closed]:
        after = after[closed + 1 :]
    return rest.removesuffix(after), before


def from_calls(one: str, two: str | None, opened: str = "") -> Dialect | None:
    """The dialect of rendered calls.

    Args:
        one: what was rendered for the call FIRST; what stands around the calls may be in it.
        two: what was rendered for FIRST and SECOND; None when several calls are refused.
        opened: what was rendered before, which a turn without calls has as well.

    Returns:
        A family's dialect where the marks are a family's, otherwise one made of what was seen; None when nothing fits.
    """
    for look in (_json, _tagged, _named):
        if found := look(one, two):
            mark = found.separator.strip()
            # A turn without calls begins with the mark of a call, too, when it names "all" as who is called.
            if not found.section_open + found.call_open and mark and opened.endswith(mark):
                found = replace(found, call_open=mark, separator="", trigger=mark, only_at_start=False)
            # Where the id stands before the name, or a number is counted up, no dialect can say so.
            return None if FIRST.id in str(found.to_dict()) else _family(found)
    for family in (families.GEMMA4, families.FUNCTION_GEMMA, families.LFM2):
        opening = family.section_open + family.call_open + FIRST.name
        if opening + ("(" if family.style == "python" else "{") in one:
            return family if two is not None else replace(family, parallel=False)
    return None


class _Span(NamedTuple):
    """Where a JSON object lies in a text, and what it says."""

    start: int
    end: int
    value: Mapping[str, Any]


def object_around(text: str, inside: int, key: str = "") -> _Span | None:
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
            return _Span(start, end, value)
        start = text.rfind("{", 0, start)
    return None


def _call_object(text: str, call: ProbeCall) -> tuple[_Span, dict[str, str]] | None:
    """The object of a call, and under which keys it has the call's name, arguments and perhaps id."""
    value = text.find(call.value)
    wanted = {"name": call.name, "arguments": call.arguments, "id": call.id}
    span = object_around(text, value)
    for _ in range(3):
        if span is None or span.end < value:
            return None
        keys = {what: key for key, found in span.value.items() for what, looked_for in wanted.items() if found == looked_for}
        if "name" in keys and "arguments" in keys:
            return span, keys
        span = object_around(text, span.start - 1)
    return None


def _json(one: str, two: str | None) -> Dialect | None:
    found = _call_object(one, FIRST)
    if found is None:
        return None
    span, keys = found
    between = None
    if two is not None:
        first, second = _call_object(two, FIRST), _call_object(two, SECOND)
        if first and second and first[0].end <= second[0].start:
            between = two[first[0].end : second[0].start], two[second[0].end :]
    body = one[span.start : span.end]
    return _dialect(
        "json", one[: span.start], one[span.end :], between,
        name_key=keys["name"], arguments_key=keys["arguments"], id_key=keys.get("id", ""),
        pair=": " if '": ' in body else ":", comma=", " if ", " in body else ",",
    )  # fmt: skip


def _named(one: str, two: str | None) -> Dialect | None:
    at = one.find(FIRST.name)
    span = object_around(one, one.find(FIRST.value))
    if at < 0 or span is None or span.start < at or dict(span.value) != FIRST.arguments:
        return None
    marks = one[at + len(FIRST.name) : span.start]
    id_open, with_id, after_name = marks.partition(FIRST.id)
    if not with_id:
        id_open, after_name = "", marks
    between = None
    if two is not None:
        first, second = object_around(two, two.find(FIRST.value)), object_around(two, two.find(SECOND.value))
        other = two.find(SECOND.name)
        # A running number behind the name is a mark for one call, but not for two.
        if first and second and two[other + len(SECOND.name) : second.start] == marks.replace(FIRST.id, SECOND.id):
            between = two[first.end : other], two[second.end :]
    return _dialect("named", one[:at], one[span.end :], between, id_open=id_open, after_name=after_name)


def _tagged(one: str, two: str | None) -> Dialect | None:
    number = str(FIRST.number)
    marks = [FIRST.name, FIRST.key, FIRST.value, FIRST.number_key, number]
    places = [one.find(mark) for mark in marks]
    if min(places) < 0 or places != sorted(places) or "{" in one[places[0] : places[4]]:
        return None
    ends = [place + len(mark) for place, mark in zip(places, marks, strict=True)]
    to_key, to_value, to_next, to_number = (one[ends[i] : places[i + 1]] for i in range(4))
    parameter_open = _common_end(to_key, to_next)
    parameter_open = parameter_open[max(0, parameter_open.find("<")) :]
    rest = one[ends[4] :]
    # White space before the next parameter belongs to the end of this one, if it also follows the last.
    if rest.startswith(to_next[: len(to_next) - len(parameter_open.lstrip())]):
        parameter_open = parameter_open.lstrip()
    parameter_close = to_next.removesuffix(parameter_open)
    if to_value != to_number or not to_value or not parameter_open or not parameter_close or not rest.startswith(parameter_close):
        return None
    between = None
    if two is not None:
        first, other, second = two.find(number), two.find(SECOND.name), two.rfind(number)
        if 0 <= first < other < second:
            skip = len(number) + len(parameter_close)
            between = two[first + skip : other], two[second + skip :]
    return _dialect(
        "tagged", one[: places[0]], rest[len(parameter_close) :], between, after_name=to_key.removesuffix(parameter_open),
        parameter_open=parameter_open, parameter_middle=to_value, parameter_close=parameter_close,
    )  # fmt: skip


def _dialect(style: Any, before: str, after: str, two: tuple[str, str] | None, **fields: Any) -> Dialect:
    """A dialect with the marks around a call, shared out between the call and the section.

    Args:
        style: of the dialect.
        before, after: what stands before and after a single call.
        two: where there may be two calls, what stands between them and after both.
        fields: of the dialect.
    """
    call_open, call_close = before, _first_mark(after)
    section_open = separator = section_close = ""
    if two is not None:
        middle, after = two
        call_open = _common_end(before, middle)
        middle = middle.removesuffix(call_open)
        call_close = _common_start(after, middle)
        separator = middle[len(call_close) :]
        section_open = before.removesuffix(call_open)
        # Only where something opened a section does something close it; the rest is the end of the turn.
        section_close = _first_mark(after[len(call_close) :]) if section_open else ""
    trigger = (section_open + call_open).strip()
    return Dialect(
        name=style, style=style, trigger=trigger or '{"' + fields.get("name_key", ""), only_at_start=not trigger,
        section_open=section_open, call_open=call_open, call_close=call_close, separator=separator, section_close=section_close,
        parallel=two is not None, **fields,
    )  # fmt: skip


def _common_start(a: str, b: str) -> str:
    length = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:length]


def _common_end(a: str, b: str) -> str:
    return _common_start(a[::-1], b[::-1])[::-1]


def _first_mark(text: str) -> str:
    """What closes something at the start of a text: one mark in brackets of any kind, with the white space before it."""
    found = re.match(r"\s*(?:\]\s*)?(?:<[^<>]{1,40}>|\[/?[A-Z_]{2,30}\])?", text)
    return found.group() if found else ""


def _family(seen: Dialect) -> Dialect:
    """The family whose marks these are; its white space as it was seen."""
    for family in families.DIALECTS.values():
        if family is families.GENERIC or family.style != seen.style:
            continue
        if _shape(family) == _shape(seen):
            return replace(
                family, parallel=seen.parallel and family.parallel, call_open=seen.call_open, call_close=seen.call_close,
                section_open=seen.section_open, section_close=seen.section_close,
                separator=seen.separator if seen.parallel else family.separator,
                after_name=seen.after_name, parameter_middle=seen.parameter_middle, parameter_close=seen.parameter_close,
            )  # fmt: skip
    return replace(seen, name=f"{seen.style} {seen.trigger}" if not seen.only_at_start else seen.style)


def _shape(dialect: Dialect) -> tuple[str, ...]:
    opening, closing = dialect.section_open + dialect.call_open, dialect.call_close + dialect.section_close
    rest = (
        dialect.name_key, dialect.arguments_key, dialect.id_key, dialect.id_open, dialect.after_name, dialect.parameter_open,
        dialect.parameter_middle,
    )  # fmt: skip
    return tuple("".join(part.split()) for part in (opening, closing, *rest))
