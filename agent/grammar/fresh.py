"""Names that must differ from those that are taken: a reader of calls refuses an object in which one comes twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from agent.grammar.leaves import PlainText, Quoted
from agent.grammar.nodes import IMPOSSIBLE, Leaf, Node, Seq

_MAX_LEAVES = 64  # remembered


class FreshName(PlainText):
    """The texts of another that are not taken. A state is the other's, and the text so far."""

    __slots__ = ("_base", "_taken")

    def __init__(self, base: PlainText, taken: frozenset[str]) -> None:
        super().__init__(base.dfa, base.low, base.high)
        self._base = base
        self._taken = frozenset(text for text in taken if base.accepts(text))

    @property
    def possible(self) -> bool:
        return self._base.possible and self._free(self._base.start(), "")

    def _free(self, inner: Any, text: str) -> bool:
        rivals = sum(name.startswith(text) for name in self._taken)
        return not rivals or self._base.more_than(inner, rivals)

    def start(self) -> Any:
        return (self._base.start(), "")

    def step(self, state: Any, char: str) -> Any:
        inner = self._base.step(state[0], char)
        text = state[1] + char
        return (inner, text) if inner is not None and self._free(inner, text) else None

    def accepting(self, state: Any) -> bool:
        return state[1] not in self._taken and self._base.accepting(state[0])

    def name(self, state: Any) -> str | None:
        text: str = state[1]
        return text

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


class Names:
    """The names of one kind of free members.

    Args:
        text: which ones.
        write: how a name is written.

    Attributes:
        leaf: what reads a name that is not one of those taken; None when none is left.
    """

    def __init__(self, text: PlainText, write: Callable[[PlainText], Quoted | PlainText]) -> None:
        self._text = text
        self._write = write
        self.leaf = lru_cache(_MAX_LEAVES)(self._leaf)

    def _leaf(self, taken: frozenset[str]) -> Leaf | None:
        leaf = self._write(FreshName(self._text, taken))
        return leaf if leaf.possible else None

    def enough(self, count: int) -> bool:
        """Whether there are at least so many names."""
        return self._text.possible and self._text.more_than(self._text.start(), count - 1)


class Fresh(Node):
    """Members of an object whose names are free but must differ.

    Args:
        kinds: of members: what stands before the name, the names, and what follows.
        low, high: how many members; ``high`` None for any number.
        comma: what stands between two members.
        led: a member stands before the first of these.
    """

    __slots__ = ("first", "high", "led", "low", "more", "names", "tails")

    def __init__(self, kinds: Sequence[tuple[Node, Names, Node]], low: int, high: int | None, comma: Node, led: bool) -> None:
        super().__init__()
        self.first = tuple(before for before, _, _ in kinds)
        self.more = tuple(Seq(comma, before) for before in self.first)
        self.names = tuple(names for _, names, _ in kinds)
        self.tails = tuple(tail for _, _, tail in kinds)
        self.low = low
        self.high = high
        self.led = led

    def parts(self) -> Sequence[Node]:
        return (*self.tails, *self.first, *self.more)

    def measure(self) -> tuple[int, bool]:
        if self.low == 0:
            return 0, True
        able = [tail.height for names, tail in zip(self.names, self.tails, strict=True) if names.enough(self.low)]
        return min(able, default=IMPOSSIBLE), False
