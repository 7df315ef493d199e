"""Values that stand between tags: a string as it is, everything else as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from agent.grammar.automata.dfa import Dfa, negate
from agent.grammar.automata.regex import compile_pattern
from agent.grammar.leaves import Literal, PlainText, TextRule
from agent.grammar.nodes import Alt, Node, Seq
from agent.grammar.schema.compile import Compiler
from agent.grammar.syntax import Json, restrict, without

_OPEN, _CLOSE = "<![CDATA[", "]]>"
_SCALARS = frozenset({"null", "boolean", "integer", "number"})


@cache
def _no_markup() -> Dfa:
    return compile_pattern("[^<>&]*", whole=True)


_NUMBER = r"-?\d[\d.eE+-]*\s*$"
_LOOKS = {
    "null": r"null\s*$", "boolean": r"(?:true|false)\s*$", "integer": _NUMBER, "number": _NUMBER,
    "array": r"\[", "object": r"\{",
}  # fmt: skip


@cache
def _no_json(kinds: frozenset[str]) -> Dfa:
    """Texts that would not be read as a value of one of the types ``kinds``."""
    looks = "|".join(sorted({_LOOKS[kind] for kind in kinds}))
    return negate(compile_pattern(rf"^\s*(?:{looks})"))


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "null" if value is None else "boolean"
    if isinstance(value, (int, float)):
        return "number"
    return "object" if isinstance(value, Mapping) else "array"


class RawValues:
    """The top-level arguments of a tagged call.

    Args:
        compiler: of the tool's schema, in JSON.
        close: the mark that ends a value.
        raw_strings: strings stand as they are; without, as JSON.
        cdata: what holds ``<``, ``>`` or ``&`` stands in a CDATA section.
    """

    def __init__(self, compiler: Compiler, close: str, raw_strings: bool, cdata: bool) -> None:
        self._compiler = compiler
        # What reads a value looks for the tag alone, and does so in JSON too.
        self._plain = without(close.strip())
        self._raw = raw_strings
        self._cdata = cdata
        self._nodes: dict[str, Node] = {}
        self._clean = compiler.other(Json(guard=_no_markup() if cdata else self._plain))
        self._wrapped = compiler.other(Json(guard=without(_CLOSE)))

    def node(self, schema: Any) -> Node:
        """The grammar of one argument."""
        key = json.dumps(schema)
        if key not in self._nodes:
            self._nodes[key] = self._node(schema)
        return self._nodes[key]

    def _node(self, schema: Any) -> Node:
        pieces = self._compiler.pieces(schema)
        options: list[Node] = []
        kinds = {_kind(value) for kind, data in pieces if kind == "enum" for value in data if not isinstance(value, str)}
        kinds |= {kind for kind, _ in pieces} - {"enum", "string"}
        guard = _no_json(frozenset(kinds)) if kinds else None
        for kind, data in pieces:
            if self._raw and kind == "string":
                options.extend(self._strings(restrict(self._compiler.text(data), guard)))
            elif self._raw and kind == "enum":
                texts = [value for value in data if isinstance(value, str)]
                options.extend(self._constant(text) for text in texts if guard is None or guard.accepts(text))
                options.append(self._other("enum", [value for value in data if not isinstance(value, str)]))
            else:
                options.append(self._other(kind, data))
        return Alt(*options)

    def _other(self, kind: str, data: Any) -> Node:
        if not self._cdata or kind in _SCALARS:
            return self._clean.piece(kind, data)
        return Alt(self._clean.piece(kind, data), self._section(self._wrapped.piece(kind, data)))

    def _section(self, node: Node) -> Node:
        return Seq(Literal(_OPEN, trusted=True), node, Literal(_CLOSE, trusted=True))

    def _strings(self, text: TextRule) -> list[Node]:
        if not self._cdata:
            return [PlainText(restrict(text, self._plain))]
        return [PlainText(restrict(text, _no_markup())), self._section(PlainText(restrict(text, without(_CLOSE))))]

    def _constant(self, text: str) -> Node:
        literal = Literal(text) if text else Seq()
        if not self._cdata:
            return literal if self._plain.accepts(text) else Alt()
        if _no_markup().accepts(text):
            return literal
        return self._section(literal) if without(_CLOSE).accepts(text) else Alt()
