"""Calls that are a name and then an object of arguments (Mistral, Functionary, DeepSeek, Kimi K2, Apertus, gpt-oss)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from agent.dialects.base import Dialect, fill, holes
from agent.dialects.reading import CUT_OFF, Reading, is_name, own_id
from agent.dialects.seen import FIRST, SECOND, Seen, described, numbered, object_around
from agent.dialects.segments import trusted, untrusted
from agent.dialects.stream import NAME, SPACE, Marks, Wait
from agent.dialects.styles.json import arguments_node, dumps, id_node, json_arguments, mark_nodes
from agent.grammar.nodes import Alt, Node, Seq
from agent.messages import Segment, ToolCall

_FENCE = re.compile(r"```\w*\s*$")
_BETWEEN = re.compile(r"<[^<>]*>|\[[A-Z_]+\]|>")


def head(dialect: Dialect) -> str:
    return ""


def name(name: str) -> str:
    return name


def write(dialect: Dialect, call: ToolCall, number: int) -> Iterator[Segment]:
    if dialect.id_open and call.id:
        yield trusted(dialect.id_open)
        yield untrusted(call.id)
    yield trusted(fill(dialect.after_name, number, call.name))
    yield untrusted(dumps(dialect, call.arguments))


def nodes(dialect: Dialect, name: str, parameters: Any) -> Iterator[Node]:
    if dialect.id_open:
        yield from mark_nodes(dialect.id_open)
        yield id_node()
    yield Alt(*(Seq(*mark_nodes(mark, name)) for mark in (dialect.after_name, *dialect.also_after)))
    yield arguments_node(dialect, parameters)


def read(reading: Reading) -> Wait[bool]:
    stream, dialect = reading.stream, reading.dialect
    nameless = bool(dialect.id_close) and (yield from stream.loosely(dialect.id_close)) >= 0  # its id is empty
    if not nameless and not is_name((yield from stream.char())):
        return False
    tape = stream.record()
    found, call_id, whole = yield from _as_described(reading)
    if not whole:  # almost so: what matters is the name, and the object behind it
        written: list[str] = []
        mark = yield from stream.until(Marks(("{", '"', *reading.closers.marks)), written.append, leave=True)
        header = stream.stop(tape)
        draft = reading.draft()
        found, call_id = _header(header, reading)
        if not found or not mark:
            yield from reading.give_up(draft, "it names no tool" if mark else CUT_OFF)
            return True
        if mark in reading.closers.marks and found not in reading.tools:
            yield from reading.give_up(draft, "no arguments follow")
            return True
        fenced = _FENCE.search(header) is not None
    else:
        stream.stop(tape)
        draft = reading.draft()
        fenced = False
        yield from stream.skip(SPACE)
    draft.name(found)
    following = yield from stream.char()
    if following in ("{", '"'):
        yield from json_arguments(reading, draft, found, call_id)
        if fenced and (yield from stream.loosely("```")) >= 0:
            yield from stream.expect("```")
    elif following and ((yield from stream.loosely(dialect.call_close)) >= 0 or (yield from reading.stopped())):
        draft.part("{}")  # a tool without arguments
        draft.done(True, lambda: (found, {}, call_id))
    else:
        yield from reading.give_up(draft, "no JSON object follows" if following else CUT_OFF)
    return True


def _as_described(reading: Reading) -> Wait[tuple[str, str, bool]]:
    """Take what is before the arguments: name, id, and whether all of it was as the dialect says."""
    stream, dialect = reading.stream, reading.dialect
    call_id = ""
    name = yield from stream.skip(NAME)
    if dialect.id_close:
        call_id = own_id(name)
        if not (yield from stream.expect(dialect.id_close)):
            return "", "", False
        name = yield from stream.skip(NAME)
    if dialect.id_open and (yield from stream.expect(dialect.id_open)):
        call_id = own_id((yield from stream.skip(NAME)))
    for mark in dialect.also_after:
        if (yield from stream.expect(mark)):
            return name, call_id, True
    for part in holes(dialect.after_name):
        if part.startswith("{") and part.endswith("}"):
            yield from stream.skip(NAME)
        elif not (yield from stream.expect(part)):
            return name, call_id, False
    return name, call_id, True


def _header(header: str, reading: Reading) -> tuple[str, str]:
    """Name and id out of what stands before the arguments."""
    id_open = reading.dialect.id_open
    call_id = ""
    if id_open and id_open in header:
        header, _, rest = header.partition(id_open)
        call_id = own_id(rest.partition("[")[0].strip())
    parts = [part.strip() for part in _BETWEEN.split(_FENCE.sub("", header))]
    named = [part for part in parts if part]
    # DeepSeek writes the word "function" before the name, gpt-oss that of a channel behind it.
    if known := next((part for part in named if part in reading.tools), ""):
        return known, call_id
    return (named[-1] if named and is_name(named[-1]) else ""), call_id


def probe(seen: Seen) -> Dialect | None:
    one, two = seen.one, seen.two
    at = one.find(FIRST.name)
    span = object_around(one, one.find(FIRST.value))
    if at < 0 or span is None or span.start < at or dict(span.value) != FIRST.arguments:
        return None
    marks = one[at + len(FIRST.name) : span.start]
    id_open, with_id, after_name = marks.partition(FIRST.id)
    if not with_id:
        id_open, after_name = "", marks
    after_name = numbered(after_name, FIRST)
    between = None
    if two is not None:
        first, second = object_around(two, two.find(FIRST.value)), object_around(two, two.find(SECOND.value))
        other = two.rfind(SECOND.name, 0, second.start) if second else -1
        written = id_open + (SECOND.id if with_id else "") + fill(after_name, 1, SECOND.name)
        if first and second and two[other + len(SECOND.name) : second.start] == written:
            between = two[first.end : other], two[second.end :]
    before, id_close = one[:at], ""
    if FIRST.id in before:  # the id comes first
        before, _, id_close = before.partition(FIRST.id)
        between = between and (between[0].partition(SECOND.id)[0], between[1])
    return described("named", before, one[span.end :], between, id_open=id_open, id_close=id_close, after_name=after_name)
