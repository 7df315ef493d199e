"""How JSON values are written: strings, constants, keys and what stands between them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agent.grammar.automata.dfa import Dfa, avoiding, both, negate
from agent.grammar.automata.regex import compile_pattern
from agent.grammar.leaves import Literal, OneOf, PlainText, Quoted
from agent.grammar.nodes import Node

WORD = "[A-Za-z_][A-Za-z0-9_.-]*"  # a free key where keys have no quotes


@dataclass(frozen=True, slots=True)
class FreeForm:
    """One way to write keys that are not declared.

    Attributes:
        limit: which ones can be written so; None for all.
        leaf: what reads one of some texts.
        mark: the dialect's mark around it.
    """

    limit: Dfa | None
    leaf: Callable[[PlainText], Quoted | PlainText] = lambda text: text
    mark: str = ""


_other = lru_cache(maxsize=1)(negate)


def word_forms(leaf: Callable[[PlainText], Quoted | PlainText], guard: Dfa | None = None, mark: str = "") -> Sequence[FreeForm]:
    """Words without quotes; any other text as ``leaf`` reads it, as far as ``guard`` accepts it."""
    word = compile_pattern(WORD, whole=True)
    other = _other(word)
    return FreeForm(word), FreeForm(other if guard is None else both(guard, other), leaf, mark)


def restrict(text: PlainText, dfa: Dfa | None) -> PlainText:
    """``text``, as far as ``dfa`` accepts it too.

    Raises:
        TooLargeError: together they are too large.
    """
    if dfa is None:
        return text
    return PlainText(dfa if text.dfa is None else both(text.dfa, dfa), text.low, text.high)


def without(mark: str) -> Dfa:
    """Texts that ``mark`` ends where it first is whole."""
    return avoiding((mark,), mark)


class Json:
    """Values as Python's ``json.dumps`` writes them, with other characters than ASCII as they are.

    Args:
        pair, comma: between key and value, and between members.
        guard: what every string must fulfil besides.
    """

    full = True  # all escapes of JSON

    def __init__(self, pair: str = ": ", comma: str = ", ", guard: Dfa | None = None) -> None:
        self.pair = pair
        self.comma = comma
        self.guard = guard

    def write(self, value: Any) -> str:
        """The text of a value."""
        return json.dumps(value, ensure_ascii=False, separators=(self.comma, self.pair))

    def constants(self, values: Iterable[Any]) -> Node:
        texts = list(map(self.write, values))
        return OneOf(text for text in texts if self.guard is None or self.guard.accepts(text))

    def string(self, text: PlainText) -> Node:
        return Quoted(restrict(text, self.guard), self.full)

    def key(self, name: str) -> Node | None:
        """A key of an object; None when it cannot be written."""
        text = self.write(name)
        return Literal(text) if self.guard is None or self.guard.accepts(text) else None

    def forms(self) -> Sequence[FreeForm]:
        """The ways to write keys that are not declared."""
        return (FreeForm(self.guard, lambda text: Quoted(text, self.full)),)
