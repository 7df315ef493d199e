"""The calls of an answer in a dialect's style, as agent/dialects/base.py lays them down."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.dialects.base import Dialect
from agent.errors import SchemaError
from agent.grammar.automata.dfa import TooLargeError
from agent.grammar.automata.regex import compile_pattern
from agent.grammar.leaves import Literal, PlainText, TextRule
from agent.grammar.nodes import IMPOSSIBLE, Alt, Nest, Node, Repeat, Seq, settle
from agent.grammar.raw import RawValues
from agent.grammar.schema.budget import check_size
from agent.grammar.schema.compile import Compiler
from agent.grammar.schema.members import Writer
from agent.grammar.syntax import FreeForm, Gemma, Json, Python, bare_form, is_bare, quoted_form
from agent.text import display

MAX_CALLS = 8
_NAME = re.compile(r"[\w.:/\-]{1,128}", re.ASCII)
_NOT_IN_TAG = re.compile(r"[<>\"'\s]")
_TAG_NAME = r"[^<>\"'/\x00-\x20\x7f-\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f\u3000]+"
_ID = "[A-Za-z0-9]{9}"


def calls_nodes(dialect: Dialect, tools: Sequence[Mapping[str, Any]], parallel: bool) -> list[tuple[str, Node]]:
    """The ways in which calls may begin, each with the text that tells that one has begun, and the grammar of all calls.

    Args:
        dialect: how they are written.
        tools: with ``name`` and ``parameters``; at least one.
        parallel: whether there may be several.

    Raises:
        SchemaError: a tool's parameters cannot be used; the message names the tool.
    """
    bodies = Alt(*(_body(dialect, tool) for tool in tools))
    one = Seq(*_text(dialect.call_open), _head(dialect), bodies)
    separator = Literal(dialect.separator, trusted=True) if dialect.separator else None
    most = MAX_CALLS if parallel and dialect.parallel else 1
    more = Repeat(Seq(*([separator] if separator else []), one), 0, most - 1)
    close = _text(dialect.section_close)
    ways: list[tuple[str, Node]] = [(dialect.trigger, Seq(*_text(dialect.section_open), one, more, *close))]
    for alias in dialect.aliases:
        ways.append((alias, Seq(Literal(alias, trusted=True), _head(dialect), bodies, more, *close)))
    return ways


def _text(text: str, trusted: bool = True) -> list[Node]:
    return [Literal(text, trusted)] if text else []


def _head(dialect: Dialect) -> Node:
    return Literal(f'{{"{dialect.name_key}"{dialect.pair}"') if dialect.style == "json" else Seq()


def _body(dialect: Dialect, tool: Mapping[str, Any]) -> Node:
    """A call from its name on."""
    name, parameters = str(tool["name"]), tool.get("parameters") or {}
    shown = display(name[:80])
    if not _NAME.fullmatch(name):
        raise SchemaError(f"the tool {shown!r} has a name that models cannot write; use letters, digits, _ and -")
    try:
        check_size(parameters)
        node = settle(Seq(Literal(name), *_arguments(dialect, parameters), *_text(dialect.call_close)))
    except (RecursionError, TooLargeError):
        raise SchemaError(f"tool {shown}: its schema's parts lead too deep into one another; make it flatter") from None
    except SchemaError as error:
        raise SchemaError(f"tool {shown}: {error}") from None
    if node.height >= IMPOSSIBLE:
        raise SchemaError(f"tool {shown}: no arguments can be written that fulfil its schema in the {dialect.name} format")
    return node


def _arguments(dialect: Dialect, parameters: Any) -> Iterator[Node]:
    schema = {"allOf": [parameters, {"type": "object"}]}
    json_syntax = Json(dialect.pair, dialect.comma)
    if dialect.style == "json":
        yield Literal(f'"{dialect.comma}"{dialect.arguments_key}"{dialect.pair}')
        yield Compiler(parameters, json_syntax).node(schema)
        if dialect.id_key:
            yield from (Literal(f'{dialect.comma}"{dialect.id_key}"{dialect.pair}"'), _id(), Literal('"}'))
        else:
            yield Literal("}")
    elif dialect.style == "named":
        if dialect.id_open:
            yield from (Literal(dialect.id_open, trusted=True), _id())
        yield from _text(dialect.after_name)
        yield Compiler(parameters, json_syntax).node(schema)
    elif dialect.style == "tagged":
        yield from _text(dialect.after_name)
        yield _tagged(dialect, Compiler(parameters, Json()), schema)
    elif dialect.style == "python":
        yield _keywords(dialect, Compiler(parameters, Python()), schema)
    else:
        yield Compiler(parameters, Gemma(dialect.quote, dialect.pair, dialect.comma)).node(schema)


def _id() -> Node:
    return PlainText(TextRule(compile_pattern(_ID, whole=True)))


def _objects(compiler: Compiler, schema: Any, writer: Writer) -> Node:
    """The members of an object that is a call's arguments, without anything around them."""
    options: list[Node] = []
    for kind, data in compiler.pieces(schema):
        if kind == "enum":  # a whole object as a constant: its members, each of them a constant
            plains = [_constant(value) for value in data if isinstance(value, Mapping)]
        else:
            plains = [data]
        options.extend(compiler.members(plain, writer) for plain in plains)
    return Alt(*options)


def _constant(value: Mapping[str, Any]) -> dict[str, Any]:
    members = {name: {"const": member} for name, member in value.items()}
    return {"properties": members, "required": list(value), "additionalProperties": False}


def _tagged(dialect: Dialect, compiler: Compiler, schema: Any) -> Node:
    values = RawValues(compiler, dialect.parameter_close, dialect.raw_strings, dialect.cdata)
    writer = Writer(
        key=lambda name: Literal(name) if name and not _NOT_IN_TAG.search(name) else None,
        forms=(FreeForm(compile_pattern(_TAG_NAME, whole=True), PlainText),), value=values.node,
        before=dialect.parameter_open, between=dialect.parameter_middle, after=dialect.parameter_close, comma="", trusted=True,
    )  # fmt: skip
    return _objects(compiler, schema, writer)


def _keywords(dialect: Dialect, compiler: Compiler, schema: Any) -> Node:
    writer = Writer(
        key=lambda name: Literal(name) if is_bare(name) else compiler.syntax.key(name) if name else None,
        forms=(bare_form(), quoted_form()), value=compiler.node, between=dialect.pair, comma=dialect.comma,
    )  # fmt: skip
    return Nest(Seq(Literal("("), _objects(compiler, schema, writer), Literal(")")))
