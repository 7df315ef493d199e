"""Calls whose arguments stand between tags, each in the form of its own type (Qwen3-Coder, Qwen3.5, MiniCPM5)."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

from agent.dialects.read_json import json_calls
from agent.dialects.reading import CUT_OFF, CallDraft, Reading, is_name
from agent.dialects.stream import SPACE, Marks, Sink, Stream, Wait
from agent.dialects.values import TYPES, BadValueError, read_json, read_sloppy_json, type_of
from agent.dialects.write import CDATA_CLOSE, CDATA_OPEN

_ENTITY = re.compile(r"&(?:lt|gt|amp|quot|apos|#39);")
_TAG_END = Marks((">",))
_MAX_REFERENCES = 8


def tagged_call(reading: Reading, opened: str) -> Wait[None]:
    """Read a name and then, each between its tags, the arguments."""
    stream, dialect = reading.stream, reading.dialect
    inner = dialect.call_open.removeprefix(dialect.trigger).strip()
    before = opened
    if inner and opened != inner:
        tape = reading.record(opened)
        yield from stream.skip(SPACE)
        mark = yield from stream.starts(Marks((inner, "{")))
        if mark == "{":  # a model that was taught the other form too
            yield from json_calls(reading, stream.stop(tape))
            return
        if not mark:
            why = f"no {inner!r} follows" if (yield from stream.char()) else CUT_OFF
            yield from reading.give_up(reading.draft(), tape, why)
            return
        stream.take(len(mark))
        before = stream.stop(tape)
    draft = reading.draft()
    tape = reading.record(before)
    written: list[str] = []
    mark = yield from stream.until(_TAG_END, written.append)
    name = "".join(written).strip(" \"'/")
    if not mark or not is_name(name):
        yield from reading.give_up(draft, tape, "it names no tool" if mark else CUT_OFF)
        return
    draft.name(name)
    arguments: dict[str, Any] = {}
    why, closed = yield from _parameters(reading, draft, name, arguments)
    if why and not closed:
        yield from reading.give_up(draft, tape, why)
    elif why:
        draft.broken(stream.stop(tape), why)
    else:
        draft.done(stream.stop(tape), True, lambda: (name, arguments, ""))


def _parameters(reading: Reading, draft: CallDraft, name: str, found: dict[str, Any]) -> Wait[tuple[str, bool]]:
    """Fill in the arguments; returns what is wrong with them (empty: nothing) and whether the call's end is taken."""
    stream, dialect = reading.stream, reading.dialect
    tags = Marks((dialect.parameter_open, *reading.closers.marks))
    twice = ""
    while True:
        draft.part((yield from stream.skip(SPACE)))
        mark = yield from stream.starts(tags)
        if not mark:
            return (f"no {dialect.parameter_open!r} follows" if (yield from stream.char()) else CUT_OFF), False
        stream.take(len(mark))
        if mark != dialect.parameter_open:
            return (f"{twice[:40]!r} comes twice" if twice else ""), True
        draft.part(mark)
        written: list[str] = []
        end = yield from stream.until(_TAG_END, _both(draft, written))
        draft.part(end)
        key = "".join(written).strip(" \"'")
        text = yield from _value(stream, draft, dialect.parameter_close.strip(), dialect.cdata)
        if text is None:
            return CUT_OFF, False
        if key in found:
            twice = key
        if not draft.too_long:
            found[key] = _typed(text, key, name, reading)


def _value(stream: Stream, draft: CallDraft, close: str, cdata: bool) -> Wait[str | None]:
    """The text of one argument, without its closing tag; None if the answer ends in it."""
    marks = Marks((close, CDATA_OPEN) if cdata else (close,))
    plain: list[str] = []
    pieces: list[str] = []
    sections = False
    while True:
        plain.clear()
        mark = yield from stream.until(marks, _both(draft, plain))
        draft.part(mark)
        if not mark:
            return None
        text = "".join(plain)
        if cdata:
            text = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
        if mark == CDATA_OPEN:
            sections = True
            pieces.append(text if text.strip() else "")
            end = yield from stream.until(Marks((CDATA_CLOSE,)), _both(draft, pieces))
            draft.part(end)
            if not end:
                return None
            continue
        if not sections or text.strip():
            pieces.append(text)
        return "".join(pieces)


def _typed(text: str, key: str, name: str, reading: Reading) -> Any:
    """An argument's value, by what the tool's schema lets it be."""
    if not reading.dialect.cdata:  # the line breaks belong to the tags
        text = text.removeprefix("\n").removesuffix("\n")
    schema = _schema_of(key, name, reading)
    types = set() if schema is None else _types(schema, reading.tools[name].parameters)
    raw_strings = reading.dialect.raw_strings
    if types == {"string"} and raw_strings:
        return text
    may_be_text = raw_strings and "string" in types
    try:
        value = read_json(text) if schema is None or may_be_text else read_sloppy_json(text)
    except BadValueError:
        return text
    # What looks like a string in quotes is one only where strings are written so.
    if isinstance(value, str) and raw_strings:
        return text
    kind = type_of(value)
    return value if not may_be_text or kind in types or (kind == "integer" and "number" in types) else text


def _schema_of(key: str, name: str, reading: Reading) -> Any:
    """The schema of an argument; None if the tool is unknown, and that of a string if the argument is."""
    tool = reading.tools.get(name)
    if tool is None:
        return None
    properties = reading.properties(name)
    if key in properties:
        return properties[key]
    more = tool.parameters.get("additionalProperties")
    return more if isinstance(more, Mapping) else {"type": "string"}


def _types(schema: Any, root: Mapping[str, Any]) -> set[str]:
    """The JSON types that a schema lets a value have; every one if it does not say."""
    found: set[str] = set()
    for part in _alternatives(schema, root):
        kind = part.get("type")
        if isinstance(kind, str):
            found.add(kind)
        elif isinstance(kind, list):
            found.update(item for item in kind if isinstance(item, str))
        elif isinstance(part.get("enum"), list):
            found.update(type_of(item) for item in part["enum"])
        elif "const" in part:
            found.add(type_of(part["const"]))
        else:
            found.update(TYPES.values())
    return found


def _alternatives(schema: Any, root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A schema, or what it refers to, or those of which it takes any one."""
    waiting = [(schema, 0)]
    while waiting:
        part, steps = waiting.pop()
        if not isinstance(part, Mapping) or steps > _MAX_REFERENCES:
            yield {}
            continue
        options = next((part[key] for key in ("anyOf", "oneOf") if isinstance(part.get(key), list)), None)
        reference = part.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/"):
            target: Any = root
            for step in reference[2:].split("/"):
                target = target.get(step) if isinstance(target, Mapping) else None
            waiting.append((target, steps + 1))
        elif options and len(options) <= 32:
            waiting.extend((option, steps + 4) for option in options)
        else:
            yield part


def _both(draft: CallDraft, kept: list[str]) -> Sink:
    def sink(text: str) -> None:
        draft.part(text)
        kept.append(text)

    return sink
