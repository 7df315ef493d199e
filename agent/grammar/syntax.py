"""How a dialect writes JSON values: strings, constants, keys and what stands between them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from agent.grammar.automata.dfa import Dfa, avoiding, both, negate
from agent.grammar.automata.regex import compile_pattern
from agent.grammar.leaves import Literal, OneOf, PlainText, Quoted, TextRule
from agent.grammar.nodes import Alt, Node, Seq

WORD = "[A-Za-z_][A-Za-z0-9_.-]*"  # a free key where keys have no quotes
_BARE = re.compile(r"[A-Za-z_][\w.\-]*")


def is_bare(name: str) -> bool:
    """Whether a declared key is written without quotes where that is the style."""
    return _BARE.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class FreeForm:
    """One way to write keys that are not declared.

    Attributes:
        limit: which ones can be written so; None for all.
        leaf: what reads one of some texts.
        mark: the dialect's mark around it.
    """

    limit: Dfa | None
    leaf: Callable[[TextRule], Quoted | PlainText]
    mark: str = ""


def bare_form() -> FreeForm:
    """Words without quotes."""
    return FreeForm(compile_pattern(WORD, whole=True), PlainText)


@cache
def _not_bare() -> Dfa:
    return negate(compile_pattern(WORD, whole=True))


def quoted_form() -> FreeForm:
    """Any other text, as a string of Python."""
    return FreeForm(_not_bare(), lambda text: Quoted(text, json=False))


@lru_cache(maxsize=256)
def _joined(a: Dfa, b: Dfa) -> Dfa:
    return both(a, b)


def restrict(text: TextRule, dfa: Dfa | None) -> TextRule:
    """``text``, as far as ``dfa`` accepts it too.

    Raises:
        TooLargeError: together they are too large.
    """
    if dfa is None:
        return text
    return TextRule(dfa if text.dfa is None else _joined(text.dfa, dfa), text.low, text.high)


@lru_cache(maxsize=64)
def without(mark: str) -> Dfa:
    """Texts that ``mark`` ends where it first is whole."""
    return avoiding((mark,), mark)


class Json:
    """Values as Python's ``json.dumps`` writes them, with other characters than ASCII as they are.

    Args:
        pair, comma: between key and value, and between members.
        guard: what every string must fulfil besides.
    """

    words: Mapping[Any, str] = {None: "null", True: "true", False: "false"}
    full = True  # all escapes of JSON

    def __init__(self, pair: str = ": ", comma: str = ", ", guard: Dfa | None = None) -> None:
        self.pair = pair
        self.comma = comma
        self.guard = guard

    def write(self, value: Any) -> str:
        """The text of a value."""
        if value is None or isinstance(value, bool):
            return self.words[value]
        if isinstance(value, Mapping):
            return "{" + self.comma.join(f"{self.write(str(k))}{self.pair}{self.write(v)}" for k, v in value.items()) + "}"
        if isinstance(value, (list, tuple)):
            return "[" + self.comma.join(map(self.write, value)) + "]"
        return json.dumps(value, ensure_ascii=False)

    def constants(self, values: Iterable[Any]) -> Node:
        texts = list(map(self.write, values))
        return OneOf(text for text in texts if self.guard is None or self.guard.accepts(text))

    def string(self, text: TextRule) -> Node:
        return Quoted(restrict(text, self.guard), self.full)

    def key(self, name: str) -> Node | None:
        """A key of an object; None when it cannot be written."""
        text = self.write(name)
        return Literal(text) if self.guard is None or self.guard.accepts(text) else None

    def forms(self) -> tuple[FreeForm, ...]:
        """The ways to write keys that are not declared."""
        return (FreeForm(self.guard, lambda text: Quoted(text, self.full)),)


class Python(Json):
    """Literals of Python: its words, and double-quoted strings with the escapes that it shares with JSON."""

    words: Mapping[Any, str] = {None: "None", True: "True", False: "False"}
    full = False


class Gemma(Json):
    """Values of Gemma's calls: strings as they are between two marks, keys bare where they are plain words."""

    def __init__(self, quote: str, pair: str, comma: str) -> None:
        super().__init__(pair, comma, without(quote))
        self.quote = quote

    def _pieces(self, value: Any) -> list[Node]:
        if isinstance(value, str):
            mark = Literal(self.quote, trusted=True)
            return [mark, Literal(value), mark] if value else [mark, mark]
        if isinstance(value, (list, tuple)):
            out: list[Node] = [Literal("[")]
            for n, item in enumerate(value):
                out += [*([Literal(self.comma)] if n else []), *self._pieces(item)]
            return [*out, Literal("]")]
        if isinstance(value, Mapping):
            out = [Literal("{")]
            for n, (name, item) in enumerate(value.items()):
                key = self.key(str(name))
                out += [*([Literal(self.comma)] if n else []), *([key] if key else []), Literal(self.pair), *self._pieces(item)]
            return [*out, Literal("}")]
        return [Literal(self.write(value))]

    def constants(self, values: Iterable[Any]) -> Node:
        return Alt(*(Seq(*self._pieces(value)) for value in values if self._writable(value)))

    def _writable(self, value: Any) -> bool:
        if isinstance(value, str):
            assert self.guard is not None
            return self.guard.accepts(value)
        if isinstance(value, Mapping):
            return all(self._writable(str(k)) and self._writable(v) for k, v in value.items())
        return not isinstance(value, (list, tuple)) or all(map(self._writable, value))

    def string(self, text: TextRule) -> Node:
        mark = Literal(self.quote, trusted=True)
        return Seq(mark, PlainText(restrict(text, self.guard)), mark)

    def key(self, name: str) -> Node | None:
        if is_bare(name):
            return Literal(name)
        return Seq(*self._pieces(name)) if self._writable(name) else None

    def forms(self) -> tuple[FreeForm, ...]:
        return (bare_form(), FreeForm(_joined(without(self.quote), _not_bare()), PlainText, self.quote))
