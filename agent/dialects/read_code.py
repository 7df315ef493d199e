"""Calls that read like code: a Python call (LFM2), or Gemma's objects with their own quotes."""

from __future__ import annotations

from agent.dialects.read_json import json_calls
from agent.dialects.reading import CUT_OFF, CallDraft, Reading, is_name
from agent.dialects.stream import NAME, PYTHON, SPACE, Lexis, Marks, Wait
from agent.dialects.values import read_keywords, read_loose


def python_calls(reading: Reading, opened: str) -> Wait[None]:
    """Read calls like ``[f(a="x"), g()]``; the list's brackets may be missing."""
    stream = reading.stream
    tape = reading.record(opened)
    listed = False
    read = 0
    while True:
        yield from stream.skip(SPACE + "," if read else SPACE)
        opener = yield from stream.starts(reading.openers)
        next_one = yield from stream.char()
        if opener and not read:
            stream.take(len(opener))
        elif next_one == "[" and not listed and not read:
            listed = True
            stream.take(1)
        elif next_one == "]" and listed:
            stream.take(1)
            break
        elif next_one == "{" and not read:  # it may be asked for JSON, and then writes the same marks
            yield from json_calls(reading, stream.stop(tape), listed=listed)
            return
        elif next_one and next_one in NAME and (listed or not read):
            name = yield from stream.skip(NAME)
            yield from stream.skip(SPACE)
            if (yield from stream.char()) != "(":
                yield from reading.give_up(reading.draft(), tape, "no parenthesis follows the name")
                return
            stream.take(1)
            yield from python_call(reading, reading.draft(), stream.stop(tape), name)
            tape = reading.record()
            read += 1
        else:
            if read:
                break
            yield from reading.give_up(reading.draft(), tape, "no call follows" if next_one else CUT_OFF)
            return
    stream.stop(tape)


def python_call(reading: Reading, draft: CallDraft, before: str, name: str) -> Wait[None]:
    """Read the arguments of a Python call behind its opening parenthesis; ``before`` is what was taken of it."""
    if is_name(name):
        draft.name(name)
    written = reading.record()
    closing = yield from reading.stream.brackets(draft.part, PYTHON)
    raw = reading.stream.stop(written)
    order = list(reading.properties(name))
    draft.done(before + raw, bool(closing), lambda: (name, read_keywords(raw.removesuffix(closing), order), ""))


def gemma_call(reading: Reading, opened: str) -> Wait[None]:
    """Read a call like ``f{a:<|"|>x<|"|>,n:2}``."""
    stream, dialect = reading.stream, reading.dialect
    tape = reading.record(opened)
    written: list[str] = []
    mark = yield from stream.until(Marks(("{", *reading.closers.marks)), written.append, leave=True)
    draft = reading.draft()
    # "call:" is part of the opening mark, and sometimes forgotten.
    name = "".join(written).strip().removeprefix(dialect.call_open.removeprefix(dialect.trigger)).strip()
    if not mark or not is_name(name):
        yield from reading.give_up(draft, tape, "it names no tool" if mark else CUT_OFF)
        return
    draft.name(name)
    before = stream.stop(tape)
    tape = reading.record()
    whole = True
    if mark == "{":
        whole = yield from stream.value(draft.part, Lexis(quotes='"', quote=dialect.quote))
    raw = stream.stop(tape)
    draft.done(before + raw, whole, lambda: (name, read_loose(raw or "{}", dialect.quote, words=True), ""))
