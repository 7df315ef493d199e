"""Calls in the notation of Gemma: ``name{key:value}``, keys without quotes, strings as they are between two marks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from agent.dialects.base import Dialect
from agent.dialects.reading import CUT_OFF, Reading, is_name
from agent.dialects.seen import FIRST, SECOND, Seen, described
from agent.dialects.segments import tame, trusted, untrusted
from agent.dialects.stream import Lexis, Marks, Wait
from agent.dialects.values import finite, is_bare, read_loose
from agent.grammar.leaves import Literal, PlainText
from agent.grammar.nodes import Alt, Node, Seq
from agent.grammar.schema.compile import Compiler
from agent.grammar.syntax import FreeForm, Json, restrict, without, word_forms
from agent.messages import Segment, ToolCall


def head(dialect: Dialect) -> str:
    return ""


def name(name: str) -> str:
    return name


def write(dialect: Dialect, call: ToolCall, number: int) -> Iterator[Segment]:
    return _value(dialect, call.arguments)


def _value(dialect: Dialect, value: Any) -> Iterator[Segment]:
    if isinstance(value, str):
        yield trusted(dialect.quote)
        yield untrusted(tame(value, dialect.quote))
        yield trusted(dialect.quote)
    elif isinstance(value, Mapping):
        yield trusted("{")
        for number, (key, item) in enumerate(value.items()):
            yield trusted(dialect.comma if number else "")
            yield from [untrusted(key)] if is_bare(key) else _value(dialect, key)
            yield trusted(dialect.pair)
            yield from _value(dialect, item)
        yield trusted("}")
    elif isinstance(value, (list, tuple)):
        yield trusted("[")
        for number, item in enumerate(value):
            yield trusted(dialect.comma if number else "")
            yield from _value(dialect, item)
        yield trusted("]")
    else:
        yield trusted(json.dumps(finite(value)))  # a number, true, false or null


class Gemma(Json):
    """Values of Gemma's calls: strings as they are between two marks, keys bare where they are plain words."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(dialect.pair, dialect.comma, without(dialect.quote))
        self.dialect = dialect

    def _constant(self, value: Any) -> Node:
        segments = _value(self.dialect, value)
        return Seq(*(Literal(s.text, trusted=s.text == self.dialect.quote) for s in segments if s.text))

    def constants(self, values: Iterable[Any]) -> Node:
        return Alt(*(self._constant(value) for value in values if self._writable(value)))

    def _writable(self, value: Any) -> bool:
        if isinstance(value, str):
            assert self.guard is not None
            return self.guard.accepts(value)
        if isinstance(value, Mapping):
            return all(self._writable(str(k)) and self._writable(v) for k, v in value.items())
        return not isinstance(value, (list, tuple)) or all(map(self._writable, value))

    def string(self, text: PlainText) -> Node:
        mark = Literal(self.dialect.quote, trusted=True)
        return Seq(mark, restrict(text, self.guard), mark)

    def key(self, name: str) -> Node | None:
        if is_bare(name):
            return Literal(name)
        return self._constant(name) if self._writable(name) else None

    def forms(self) -> Sequence[FreeForm]:
        return word_forms(lambda text: text, self.guard, self.dialect.quote)


def nodes(dialect: Dialect, name: str, parameters: Any) -> Iterator[Node]:
    yield Compiler(parameters, Gemma(dialect)).node({"allOf": [parameters, {"type": "object"}]})


def read(reading: Reading) -> Wait[bool]:
    stream, dialect = reading.stream, reading.dialect
    if (yield from stream.char()) in ("{", "["):
        return False
    written: list[str] = []
    mark = yield from stream.until(Marks(("{", *reading.closers.marks)), written.append, leave=True)
    draft = reading.draft()
    # "call:" is part of the opening mark, and sometimes forgotten or written once more.
    found = "".join(written).strip().removeprefix(dialect.call_open.removeprefix(dialect.trigger)).strip()
    if not mark or not is_name(found):
        yield from reading.give_up(draft, "it names no tool" if mark else CUT_OFF)
        return True
    draft.name(found)
    tape = stream.record()
    whole = True
    if mark == "{":
        lexis = Lexis(quotes='"', quote=dialect.quote, stops=reading.closers.marks)
        whole = yield from stream.value(draft.part, lexis)
    raw = stream.stop(tape)
    draft.done(whole, lambda: (found, read_loose(raw or "{}", dialect.quote, words=True), ""))
    return True


def probe(seen: Seen) -> Dialect | None:
    one, two = seen.one, seen.two
    start, key, value = one.find(FIRST.name + "{"), one.find(FIRST.key), one.find(FIRST.value)
    number_key, number, end = one.find(FIRST.number_key), one.find(str(FIRST.number)), _end(one, FIRST.value)
    if not 0 <= start < key < value < number_key < number < end:
        return None
    pair = one[number_key + len(FIRST.number_key) : number]
    quote = one[key + len(FIRST.key) + len(pair) : value]
    comma = one[value + len(FIRST.value) + len(quote) : number_key]
    between = None
    if two is not None and (other := two.find(SECOND.name + "{")) >= 0:
        between = two[_end(two, FIRST.value) : other], two[_end(two, SECOND.value) :]
    return described("gemma", one[:start], one[end:], between, pair=pair, comma=comma, quote=quote) if quote else None


def _end(text: str, value: str) -> int:
    return text.find("}", text.find(value)) + 1
