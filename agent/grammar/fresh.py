"""Names that must differ from those that are taken: a reader of calls refuses an object in which one comes twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.grammar.leaves import PlainText, Quoted, TextRule
from agent.grammar.nodes import FreshNames, Leaf

_MAX_LEAVES = 64  # remembered


class FreshText(TextRule):
    """The texts of another that are not taken. A state is the other's, and the text so far."""

    __slots__ = ("_base", "_taken")

    def __init__(self, base: TextRule, taken: frozenset[str]) -> None:
        super().__init__(base.dfa, base.low, base.high)
        self._base = base
        self._taken = frozenset(text for text in taken if base.accepts(text))

    @property
    def possible(self) -> bool:
        return self._base.possible and self._free(self._base.start, "")

    def _free(self, inner: Any, text: str) -> bool:
        rivals = sum(name.startswith(text) for name in self._taken)
        return not rivals or self._base.more_than(inner, rivals)

    @property
    def start(self) -> Any:
        return (self._base.start, "")

    def step(self, state: Any, char: str) -> Any:
        inner = self._base.step(state[0], char)
        text = state[1] + char
        return (inner, text) if inner is not None and self._free(inner, text) else None

    def accepting(self, state: Any) -> bool:
        return state[1] not in self._taken and self._base.accepting(state[0])

    def _next_of_taken(self, text: str) -> set[str]:
        return {name[len(text)] for name in self._taken if len(name) > len(text) and name.startswith(text)}

    def any_in(self, state: Any, low: int, high: int) -> bool:
        inner, text = state
        at = low
        for char in sorted(self._next_of_taken(text)):
            code = ord(char)
            if low <= code <= high:
                if self.step(state, char) is not None or self._base.any_in(inner, at, code - 1):
                    return True
                at = code + 1
        return self._base.any_in(inner, at, high)

    def first(self, state: Any) -> frozenset[str] | None:
        chars = self._base.first(state[0])
        if chars is None:
            return None
        return chars - {char for char in self._next_of_taken(state[1]) if self.step(state, char) is None}


class _Name(Leaf):
    """A leaf that reads a name, and tells it."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Quoted | PlainText) -> None:
        super().__init__()
        self._inner = inner

    def start(self) -> Any:
        return self._inner.start()

    def step(self, state: Any, char: str) -> Any:
        return self._inner.step(state, char)

    def accepting(self, state: Any) -> bool:
        return self._inner.accepting(state)

    def open(self, state: Any) -> bool:
        return self._inner.open(state)

    def first(self, state: Any) -> frozenset[str] | None:
        return self._inner.first(state)

    def any_in(self, state: Any, low: int, high: int) -> bool:
        return self._inner.any_in(state, low, high)

    def name(self, state: Any) -> str | None:
        text: str = state[1] if isinstance(self._inner, PlainText) else state[1][1]
        return text


class Names(FreshNames):
    """The names of one kind of free members.

    Args:
        text: which ones.
        write: how a name is written.
    """

    def __init__(self, text: TextRule, write: Callable[[TextRule], Quoted | PlainText]) -> None:
        self._text = text
        self._write = write
        self._leaves: dict[frozenset[str], Leaf | None] = {}

    def leaf(self, taken: frozenset[str]) -> Leaf | None:
        if taken not in self._leaves:
            if len(self._leaves) >= _MAX_LEAVES:
                self._leaves.clear()
            inner = self._write(FreshText(self._text, taken))
            self._leaves[taken] = _Name(inner) if inner.possible else None
        return self._leaves[taken]

    def enough(self, count: int) -> bool:
        return self._text.possible and self._text.more_than(self._text.start, count - 1)
