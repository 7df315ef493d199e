"""The calls of an answer in a dialect's style, as agent/dialects/base.py lays them down."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from agent.dialects.base import Dialect
from agent.dialects.values import type_of
from agent.dialects.write import CDATA_CLOSE, CDATA_OPEN, NOT_IN_TAG, is_bare
from agent.errors import SchemaError
from agent.grammar.automata.dfa import Dfa, TooLargeError, negate
from agent.grammar.automata.regex import compile_pattern
from agent.grammar.leaves import Literal, PlainText, Quoted
from agent.grammar.nodes import IMPOSSIBLE, Alt, Nest, Node, Repeat, Seq, settle
from agent.grammar.schema.budget import check_size
from agent.grammar.schema.compile import Compiler
from agent.grammar.schema.members import Writer
from agent.grammar.syntax import FreeForm, Gemma, Json, Python, restrict, without, word_forms
from agent.text import display

MAX_CALLS = 8
_NAME = re.compile(r"[\w.:/\-]{1,128}", re.ASCII)
_TAG_NAME = r"[^<>\"'/\x00-\x20\x7f-\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f\u3000]+"
_ID = "[A-Za-z0-9]{9}"
_SCALARS = frozenset({"null", "boolean", "integer", "number"})
_NUMBER = r"-?\d[\d.eE+-]*\s*$"
# How a value of each type begins, or is, when it stands between tags.
_LOOKS = {
    "null": r"null\s*$", "boolean": r"(?:true|false)\s*$", "integer": _NUMBER, "number": _NUMBER,
    "array": r"\[", "object": r"\{",
}  # fmt: skip


def calls_nodes(dialect: Dialect, tools: Sequence[Mapping[str, Any]], parallel: bool) -> list[tuple[str, Node]]:
    """The ways in which calls may begin, each with the text that tells that one has begun, and the grammar of all calls.

    Args:
        dialect: how they are written.
        tools: with ``name`` and ``parameters``; at least one.
        parallel: whether there may be several.

    Raises:
        SchemaError: a tool's parameters cannot be used; the message names the tool.
    """
    head = f'{{"{dialect.name_key}"{dialect.pair}"' if dialect.style == "json" else ""
    body = Seq(Literal(head), Alt(*(_body(dialect, tool) for tool in tools)))
    one = Seq(_mark(dialect.call_open), body)
    most = MAX_CALLS if parallel and dialect.parallel else 1
    more = Repeat(Seq(_mark(dialect.separator), one), 0, most - 1)
    close = _mark(dialect.section_close)
    ways: list[tuple[str, Node]] = [(dialect.trigger, Seq(_mark(dialect.section_open), one, more, close))]
    ways += [(alias, Seq(_mark(alias), body, more, close)) for alias in dialect.aliases]
    return ways


def _mark(text: str) -> Literal:
    return Literal(text, trusted=True)


def _body(dialect: Dialect, tool: Mapping[str, Any]) -> Node:
    """A call from its name on."""
    name, parameters = str(tool["name"]), tool.get("parameters") or {}
    shown = display(name[:80])
    if not _NAME.fullmatch(name):
        raise SchemaError(f"the tool {shown!r} has a name that models cannot write; use letters, digits, _ and -")
    try:
        check_size(parameters)
        node = settle(Seq(Literal(name), *_arguments(dialect, parameters), _mark(dialect.call_close)))
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
            yield from (Literal(f'{dialect.comma}"{dialect.id_key}"{dialect.pair}"'), _id(), Literal('"'))
        yield Literal("}")
    elif dialect.style == "named":
        if dialect.id_open:
            yield from (_mark(dialect.id_open), _id())
        yield _mark(dialect.after_name)
        yield Compiler(parameters, json_syntax).node(schema)
    elif dialect.style == "tagged":
        yield _mark(dialect.after_name)
        yield _tagged(dialect, Compiler(parameters, Json()), schema)
    elif dialect.style == "python":
        yield _keywords(dialect, Compiler(parameters, Python()), schema)
    else:
        yield Compiler(parameters, Gemma(dialect)).node(schema)


def _id() -> Node:
    return PlainText(compile_pattern(_ID, whole=True))


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
    values = RawValues(dialect, compiler)
    writer = Writer(
        key=lambda name: Literal(name) if name and not NOT_IN_TAG.search(name) else None,
        forms=(FreeForm(compile_pattern(_TAG_NAME, whole=True)),), value=values.node,
        before=dialect.parameter_open, between=dialect.parameter_middle, after=dialect.parameter_close, comma="", trusted=True,
    )  # fmt: skip
    return _objects(compiler, schema, writer)


def _keywords(dialect: Dialect, compiler: Compiler, schema: Any) -> Node:
    writer = Writer(
        key=lambda name: Literal(name) if is_bare(name) else compiler.syntax.key(name) if name else None,
        forms=word_forms(lambda text: Quoted(text, json=False)), value=compiler.node, between=dialect.pair, comma=dialect.comma,
    )  # fmt: skip
    return Nest(Seq(Literal("("), _objects(compiler, schema, writer), Literal(")")))


@cache
def _no_json(kinds: frozenset[str]) -> Dfa:
    """Texts that would not be read as a value of one of the types ``kinds``."""
    looks = "|".join(sorted({_LOOKS[kind] for kind in kinds}))
    return negate(compile_pattern(rf"^\s*(?:{looks})"))


def _section(node: Node) -> Node:
    return Seq(Literal(CDATA_OPEN, trusted=True), node, Literal(CDATA_CLOSE, trusted=True))


class RawValues:
    """The top-level arguments of a tagged call: a string as it is, everything else as JSON.

    In a dialect with ``cdata``, what holds ``<``, ``>`` or ``&`` stands in a CDATA section.
    """

    def __init__(self, dialect: Dialect, compiler: Compiler) -> None:
        self._compiler = compiler
        self._raw = dialect.raw_strings
        self._nodes: dict[str, Node] = {}
        # What reads a value looks for the tag alone, and does so in JSON too.
        plain = compile_pattern("[^<>&]*", whole=True) if dialect.cdata else without(dialect.parameter_close.strip())
        ways: list[tuple[Dfa, Callable[[Node], Node]]] = [(plain, lambda node: node)]
        if dialect.cdata:
            ways.append((without(CDATA_CLOSE), _section))
        self._ways = [(guard, compiler.other(Json(guard=guard)), around) for guard, around in ways]

    def node(self, schema: Any) -> Node:
        """The grammar of one argument."""
        key = json.dumps(schema)
        if key not in self._nodes:
            self._nodes[key] = self._node(schema)
        return self._nodes[key]

    def _node(self, schema: Any) -> Node:
        pieces = self._compiler.pieces(schema)
        options: list[Node] = []
        kinds = {type_of(value) for kind, data in pieces if kind == "enum" for value in data if not isinstance(value, str)}
        kinds |= {kind for kind, _ in pieces} - {"enum", "string"}
        guard = _no_json(frozenset(kinds)) if kinds else None
        for kind, data in pieces:
            if self._raw and kind == "string":
                text = restrict(self._compiler.text(data), guard)
                options += [around(restrict(text, fitting)) for fitting, _, around in self._ways]
            elif self._raw and kind == "enum":
                texts = [value for value in data if isinstance(value, str)]
                options.extend(self._constant(text) for text in texts if guard is None or guard.accepts(text))
                options.append(self._other("enum", [value for value in data if not isinstance(value, str)]))
            else:
                options.append(self._other(kind, data))
        return Alt(*options)

    def _other(self, kind: str, data: Any) -> Node:
        ways = self._ways[:1] if kind in _SCALARS else self._ways
        return Alt(*(around(compiler.piece(kind, data)) for _, compiler, around in ways))

    def _constant(self, text: str) -> Node:
        return next((around(Literal(text)) for fitting, _, around in self._ways if fitting.accepts(text)), Alt())
