"""Calls that read like Python: ``name(key=value)``, in a list or alone (LFM2)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from agent.dialects.base import Dialect
from agent.dialects.reading import CallDraft, Reading, is_name
from agent.dialects.seen import FIRST, SECOND, ProbeCall, Seen, described
from agent.dialects.segments import trusted, untrusted
from agent.dialects.stream import NAME, SPACE, Wait
from agent.dialects.values import finite, is_bare, read_keywords
from agent.grammar.leaves import Literal, Quoted
from agent.grammar.nodes import Alt, Nest, Node, Seq
from agent.grammar.schema.compile import Compiler
from agent.grammar.schema.members import Writer
from agent.grammar.syntax import Json, word_forms
from agent.messages import Segment, ToolCall


def head(dialect: Dialect) -> str:
    return ""


def name(name: str) -> str:
    return name


def write(dialect: Dialect, call: ToolCall, number: int) -> Iterator[Segment]:
    members = [
        (key if is_bare(key) else json.dumps(key, ensure_ascii=False)) + dialect.pair + literal(value)
        for key, value in call.arguments.items()
    ]
    yield trusted("(")
    yield untrusted(dialect.comma.join(members))
    yield trusted(")")


def literal(value: Any) -> str:
    """A JSON value as a literal of Python, its strings with the escapes of JSON."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(literal, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(finite(value))  # True, False, None or a number


class Python(Json):
    """Literals of Python: its words, and double-quoted strings with the escapes that it shares with JSON."""

    full = False

    def write(self, value: Any) -> str:
        return literal(value)


def nodes(dialect: Dialect, name: str, parameters: Any) -> Iterator[Node]:
    compiler = Compiler(parameters, Python())
    writer = Writer(
        key=lambda name: Literal(name) if is_bare(name) else compiler.syntax.key(name) if name else None,
        forms=word_forms(lambda text: Quoted(text, json=False)), value=compiler.node, between=dialect.pair, comma=dialect.comma,
    )  # fmt: skip
    yield Nest(Seq(Literal("("), members(compiler, parameters, writer), Literal(")")))


def members(compiler: Compiler, parameters: Any, writer: Writer) -> Node:
    """The members of an object that is a call's arguments, without anything around them."""
    options: list[Node] = []
    for kind, data in compiler.pieces({"allOf": [parameters, {"type": "object"}]}):
        if kind == "enum":  # a whole object as a constant: its members, each of them a constant
            plains = [_constant(value) for value in data if isinstance(value, Mapping)]
        else:
            plains = [data]
        options.extend(compiler.members(plain, writer) for plain in plains)
    return Alt(*options)


def _constant(value: Mapping[str, Any]) -> dict[str, Any]:
    constants = {name: {"const": member} for name, member in value.items()}
    return {"properties": constants, "required": list(value), "additionalProperties": False}


def read(reading: Reading) -> Wait[bool]:
    stream = reading.stream
    if not is_name((yield from stream.char())):
        return False
    found = yield from stream.skip(NAME)
    yield from stream.skip(SPACE)
    if (yield from stream.char()) == "(":
        yield from python_call(reading, reading.draft(), found)
    else:
        yield from reading.give_up(reading.draft(), "no parenthesis follows the name")
    return True


def python_call(reading: Reading, draft: CallDraft, name: str) -> Wait[None]:
    """Read the arguments of a Python call, its parentheses included."""
    if is_name(name):
        draft.name(name)
    reading.stream.take(1)
    tape = reading.stream.record()
    closing = yield from reading.stream.brackets(draft.part, reading.code)
    whole = bool(closing) or (yield from reading.stopped())
    raw = reading.stream.stop(tape)
    order = list(reading.properties(name))
    words = reading.dialect.style != "python"
    draft.done(whole, lambda: (name, read_keywords(raw.removesuffix(closing), order, words=words), ""))


def probe(seen: Seen) -> Dialect | None:
    one, two = seen.one, seen.two
    start, value, end = one.find(FIRST.name + "("), one.find(FIRST.value), _end(one, FIRST)
    if not 0 <= start < value < end:
        return None
    between = None
    if two is not None and (other := two.find(SECOND.name + "(")) >= 0:
        between = two[_end(two, FIRST) : other], two[_end(two, SECOND) :]
    return described("python", one[:start], one[end:], between, pair="=", comma=", ")


def _end(text: str, call: ProbeCall) -> int:
    return text.find(")", text.find(call.value)) + 1
