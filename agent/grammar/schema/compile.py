"""JSON Schema (the part of draft 2020-12 that tools use) as a grammar, in any syntax.

Members of an object are written in the order in which the schema declares them, then those that it does not declare. An object
with ``properties`` and without ``additionalProperties`` has no others: a model that may invent arguments does. A schema that says
nothing of types but uses keywords of one (``properties``, ``minimum``) means that one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from agent.errors import SchemaError
from agent.grammar.automata.dfa import Dfa, TooLargeError
from agent.grammar.automata.formats import format_automaton
from agent.grammar.automata.regex import NotRegularError, compile_pattern
from agent.grammar.leaves import Literal, PlainText
from agent.grammar.nodes import IMPOSSIBLE, Alt, Nest, Node, Ref, Repeat, Seq, settle
from agent.grammar.schema.budget import Budget, check_size
from agent.grammar.schema.interval import Interval, exact
from agent.grammar.schema.members import Member, Writer, free_kinds, members_node
from agent.grammar.schema.merge import FORMATS, PATTERNS, branches, heads_of, types_of
from agent.grammar.schema.numbers import number
from agent.grammar.schema.validate import validate
from agent.grammar.syntax import Json, restrict
from agent.text import display

_AFTERWARDS = frozenset({
    "not", "if", "then", "else", "uniqueItems", "contains", "minContains", "maxContains", "dependentRequired", "dependentSchemas",
    "dependencies", "unevaluatedProperties", "unevaluatedItems",
})  # fmt: skip
_CONSTANTS: dict[str, list[Any]] = {"null": [None], "boolean": [True, False]}
_MAX_COUNT = 100_000  # of characters or items that a schema may ask for
_MAX_EXACT_LOW = 1000  # least length that is still exact together with a pattern


def count_of(schema: Mapping[str, Any], keyword: str) -> int | None:
    """A keyword's number of things; None without it.

    Raises:
        SchemaError: it is not a number from zero up.
    """
    value = schema.get(keyword)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0 or value != value // 1:
        raise SchemaError(f"a schema's {keyword} is {display(str(value)[:40])}; it must be a whole number from 0 up")
    if value > _MAX_COUNT and keyword.startswith("min"):
        raise SchemaError(f"a schema's {keyword} asks for more than {_MAX_COUNT}")
    return int(value)


def _amount(schema: Mapping[str, Any], keyword: str) -> Fraction | None:
    value = schema.get(keyword)
    if value is None or value is False:
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 10**300:
            raise ValueError
        return exact(value)
    except (ValueError, OverflowError):
        shown = display(str(value)[:40])
        raise SchemaError(f"a schema's {keyword} is {shown}; it must be a number of usual size") from None


def _bound(schema: Mapping[str, Any], plain: str, exclusive: str, tighter: Any) -> tuple[Fraction | None, bool]:
    """A bound, and whether it is itself excluded."""
    bound = _amount(schema, plain)
    if schema.get(exclusive) is True:  # draft 4: it speaks of the other keyword
        return bound, bound is not None
    limit = _amount(schema, exclusive)
    if limit is not None and (bound is None or tighter(bound, limit) == limit):
        return limit, True
    return bound, False


class Compiler:
    """Turns the schemas of one document into nodes.

    Attributes:
        root: the document, which references are followed in.
        syntax: how values are written.
        deferred: what the grammar cannot express, for people; such values must be checked when they are whole.
    """

    def __init__(self, root: Any, syntax: Json, deferred: set[str] | None = None, budget: Budget | None = None) -> None:
        self.root = root
        self.syntax = syntax
        self.deferred = set() if deferred is None else deferred
        self.budget = budget or Budget()
        self._nodes: dict[str, Node] = {}

    def other(self, syntax: Json) -> Compiler:
        """A compiler of the same document in another syntax."""
        return Compiler(self.root, syntax, self.deferred, self.budget)

    def node(self, schema: Any) -> Node:
        """The grammar of the values that a schema allows."""
        if schema is True:
            schema = {}
        key = json.dumps(schema)
        known = self._nodes.get(key)
        if known is None:
            # What is met again inside itself refers to it.
            ref = self._nodes[key] = Ref()
            ref.target = self._nodes[key] = Alt(*(self.piece(kind, data) for kind, data in self.pieces(schema)))
            known = ref.target
        return known

    def pieces(self, schema: Any) -> list[tuple[str, Any]]:
        """What a schema allows, by type: (type, plain schema), or ("enum", the values)."""
        if isinstance(schema, Mapping) and "oneOf" in schema:
            self.deferred.add("oneOf")
        out: list[tuple[str, Any]] = []
        for plain in branches(schema, self.root, self.budget):
            self.deferred |= _AFTERWARDS & plain.keys()
            if "enum" in plain:
                out.append(("enum", self._enum(plain)))
            else:
                out.extend((kind, plain) for kind in types_of(plain))
        return out

    def _enum(self, plain: dict[str, Any]) -> list[Any]:
        rest = {k: v for k, v in plain.items() if k not in ("enum", PATTERNS, FORMATS)}
        rest["allOf"] = [{"pattern": p} for p in plain.get(PATTERNS, ())] + [{"format": f} for f in plain.get(FORMATS, ())]
        return [value for value in plain["enum"] if validate(value, rest, self.root) is None]

    def piece(self, kind: str, data: Any) -> Node:
        """The grammar of one of ``pieces``."""
        if kind in ("enum", "null", "boolean"):
            return self.syntax.constants(_CONSTANTS.get(kind, data))
        if kind in ("integer", "number"):
            return self._number(data, kind == "integer")
        if kind == "string":
            return self.syntax.string(self.text(data))
        if kind == "array":
            return self._array(data)
        writer = Writer(
            key=self.syntax.key, forms=self.syntax.forms(), value=self.node, between=self.syntax.pair, comma=self.syntax.comma,
        )  # fmt: skip
        return Nest(Seq(Literal("{"), self.members(data, writer), Literal("}")))

    def text(self, plain: Mapping[str, Any]) -> PlainText:
        """What a string may say."""
        low, high = count_of(plain, "minLength") or 0, count_of(plain, "maxLength")
        text = PlainText()
        for pattern in plain.get(PATTERNS, ()):
            try:
                text = restrict(text, compile_pattern(pattern))
            except (NotRegularError, TooLargeError):
                self.deferred.add("pattern")
        for name in plain.get(FORMATS, ()):
            known = format_automaton(name) if isinstance(name, str) else None
            if known is None:
                continue
            try:
                text = restrict(text, known[0])
            except TooLargeError:
                self.deferred.add("format")
            if known[1] is not None:
                high = known[1] if high is None else min(high, known[1])
        if text.dfa is not None and low > _MAX_EXACT_LOW:
            self.deferred.add("minLength")
            low = 0
        return PlainText(text.dfa, low, high)

    def _number(self, plain: Mapping[str, Any], integer: bool) -> Node:
        low, open_low = _bound(plain, "minimum", "exclusiveMinimum", max)
        high, open_high = _bound(plain, "maximum", "exclusiveMaximum", min)
        step = _amount(plain, "multipleOf")
        if step is not None and step <= 0:
            raise SchemaError("a schema's multipleOf is not above 0")
        try:
            return number(Interval(low, high, open_low, open_high, step), integer)
        except ValueError:
            self.deferred.add("multipleOf")
            return number(Interval(low, high, open_low, open_high), integer)

    def _array(self, plain: Mapping[str, Any]) -> Node:
        low, high = count_of(plain, "minItems") or 0, count_of(plain, "maxItems")
        heads, tail = heads_of(plain)
        if high is not None:
            heads = heads[:high]
        comma = Literal(self.syntax.comma)
        left = None if high is None else high - len(heads)
        item = self.node(tail)
        if heads:
            node: Node = Repeat(Seq(comma, item), max(0, low - len(heads)), left)
        else:
            node = Repeat(item, low, left, comma)
        for at in range(len(heads) - 1, -1, -1):
            head = self.node(heads[at])
            written = Seq(comma, head, node) if at else Seq(head, node)
            node = Alt(written, Seq()) if at >= low else written
        return Nest(Seq(Literal("["), node, Literal("]")))

    def members(self, plain: Mapping[str, Any], writer: Writer) -> Node:
        """The members of an object, without what stands around them."""
        declared = plain.get("properties", {})
        required = plain.get("required", [])
        extra = plain.get("additionalProperties", "properties" not in plain)
        patterns = plain.get("patternProperties", {})
        rest = extra if "additionalProperties" in plain else True
        schemas = {**declared, **{name: rest for name in required if name not in declared}}
        automata: list[tuple[Dfa, Any]] = []
        for pattern, schema in patterns.items():
            try:
                dfa = compile_pattern(pattern)
            except (NotRegularError, TooLargeError):
                raise SchemaError("a schema's patternProperties has a pattern that is not a regular expression") from None
            automata.append((dfa, schema))
            for name in schemas:
                if dfa.accepts(name):
                    schemas[name] = schema if schemas[name] is True else {"allOf": [schemas[name], schema]}
        members = [Member(name, writer.value(schema), name in required) for name, schema in schemas.items()]
        names: PlainText | None = None
        if "propertyNames" in plain:
            match self.pieces(plain["propertyNames"]):
                case [("string", data)]:
                    names = self.text(data)
                case _:
                    self.deferred.add("propertyNames")
        low, high = count_of(plain, "minProperties") or 0, count_of(plain, "maxProperties")
        self.budget.spend(len(members) // 10)
        try:
            other = None if extra is False else writer.value(extra)
            free = free_kinds([(dfa, writer.value(s)) for dfa, s in automata], other, list(schemas), names)
            if len(automata) > 1:
                self.deferred.add("patternProperties")
            return members_node(members, free, low, high, writer, self.budget)
        except TooLargeError:
            raise SchemaError("a schema's property names and patterns are too many together; make them fewer") from None


def compile_schema(schema: Any, syntax: Json | None = None) -> tuple[Node, list[str]]:
    """The settled grammar of the values that a schema allows, and the keywords that only a check afterwards can answer for.

    Raises:
        SchemaError: the schema is too large, wrong, or nothing fulfils it; the message says so in one line.
    """
    check_size(schema)
    compiler = Compiler(schema, syntax or Json())
    try:
        node = settle(compiler.node(schema))
    except (RecursionError, TooLargeError):
        raise SchemaError("a schema's parts lead too deep into one another; make it flatter") from None
    if node.height >= IMPOSSIBLE:
        raise SchemaError("a schema contradicts itself: no value can fulfil it")
    return node, sorted(compiler.deferred)
