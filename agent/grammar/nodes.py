"""The grammar algebra: leaves that read characters, and what puts them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

IMPOSSIBLE = 1 << 30  # the height of what nothing can be written for


@dataclass(slots=True, eq=False)
class Node:
    """A part of a grammar.

    Attributes:
        height: how many levels of lists and objects its flattest text has.
        nullable: whether it may be empty.
    """

    height: int = field(default=IMPOSSIBLE, init=False)
    nullable: bool = field(default=False, init=False)

    def parts(self) -> Sequence[Node]:
        """What it is made of."""
        return ()

    def measure(self) -> tuple[int, bool]:
        """Its height and whether it may be empty, by what its parts say of themselves."""
        raise NotImplementedError


@dataclass(slots=True, eq=False)
class Leaf(Node):
    """A small deterministic automaton. Its states are plain hashable values.

    Attributes:
        trusted: written by the dialect, so that a control token may stand for it.
        loose: control tokens pass as well; free text.
        phase: what an answer is doing while it is here, for people; usually empty.
    """

    trusted: bool = False
    loose: bool = False
    phase: str = ""

    def measure(self) -> tuple[int, bool]:
        return (0, self.accepting(self.start())) if self.possible else (IMPOSSIBLE, False)

    @property
    def possible(self) -> bool:
        """Whether any text at all can be written."""
        start = self.start()
        return self.open(start) or self.accepting(start)

    def start(self) -> Any:
        raise NotImplementedError

    def step(self, state: Any, char: str) -> Any:
        """The next state; None when ``char`` may not come next, also when nothing could end what it begins."""
        raise NotImplementedError

    def accepting(self, state: Any) -> bool:
        """Whether the text may end here."""
        raise NotImplementedError

    def open(self, state: Any) -> bool:
        """Whether any character may come next."""
        first = self.first(state)
        return first is None or bool(first)

    def first(self, state: Any) -> frozenset[str] | None:
        """The characters that may come next; None when they are too many to list."""
        raise NotImplementedError

    def name(self, state: Any) -> str | None:
        """Of a free member's name that is whole: the name."""
        return None

    def any_in(self, state: Any, low: int, high: int) -> bool:
        """Whether a character with a code point from ``low`` to ``high`` may come next."""
        first = self.first(state)
        return first is None or any(low <= ord(char) <= high for char in first)


class Seq(Node):
    """One after the other."""

    __slots__ = ("items",)

    def __init__(self, *items: Node) -> None:
        super().__init__()
        self.items = items

    def parts(self) -> Sequence[Node]:
        return self.items

    def measure(self) -> tuple[int, bool]:
        return max((item.height for item in self.items), default=0), all(item.nullable for item in self.items)


class Alt(Node):
    """One of them. Without any, nothing."""

    __slots__ = ("options",)

    def __init__(self, *options: Node) -> None:
        super().__init__()
        self.options = tuple(dict.fromkeys(options))

    def parts(self) -> Sequence[Node]:
        return self.options

    def measure(self) -> tuple[int, bool]:
        height = min((option.height for option in self.options), default=IMPOSSIBLE)
        return height, any(option.nullable for option in self.options)


@dataclass(slots=True, eq=False)
class Repeat(Node):
    """``low`` to ``high`` times (None: without end) ``item``, with ``separator`` between two of them."""

    item: Node
    low: int
    high: int | None
    separator: Node | None = None

    def parts(self) -> Sequence[Node]:
        return (self.item,) if self.separator is None else (self.item, self.separator)

    def measure(self) -> tuple[int, bool]:
        if self.low == 0:
            return 0, True
        needed = self.parts() if self.low > 1 else (self.item,)
        return max(part.height for part in needed), False


@dataclass(slots=True, eq=False)
class Nest(Node):
    """A list or an object: one level more of nesting, and nesting has a limit."""

    inner: Node

    def parts(self) -> Sequence[Node]:
        return (self.inner,)

    def measure(self) -> tuple[int, bool]:
        return min(IMPOSSIBLE, self.inner.height + 1), self.inner.nullable


@dataclass(slots=True, eq=False)
class Ref(Node):
    """What is defined elsewhere, perhaps around this very place. ``target`` is set when it is known."""

    target: Node = field(default_factory=Node, init=False)

    def parts(self) -> Sequence[Node]:
        return (self.target,)

    def measure(self) -> tuple[int, bool]:
        return self.target.height, self.target.nullable


def settle(root: Node) -> Node:
    """Compute ``height`` and ``nullable`` of everything that can be reached, and return ``root``.

    Raises:
        ValueError: something nullable is repeated, so that a text could be read in endless ways.
    """
    order: list[Node] = []
    seen = {id(root)}
    stack = [(root, iter(root.parts()))]
    while stack:  # parts before wholes, so that one round is enough but for what is around itself
        node, parts = stack[-1]
        part = next(parts, None)
        if part is None:
            order.append(node)
            stack.pop()
        elif id(part) not in seen:
            seen.add(id(part))
            stack.append((part, iter(part.parts())))
    circular = any(isinstance(node, Ref) for node in order)  # else all parts of a whole stand before it
    changed = True
    while changed:
        changed = False
        for node in order:
            height, nullable = node.measure()
            if height < node.height or nullable != node.nullable:
                node.height, node.nullable = height, nullable
                changed = circular
    if any(isinstance(node, Repeat) and node.item.nullable for node in order):
        raise ValueError("a grammar repeats what may be empty")
    return root
