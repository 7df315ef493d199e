"""The grammar algebra: leaves that read characters, and what puts them together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

IMPOSSIBLE = 1 << 30  # the height of what nothing can be written for


class Node:
    """A part of a grammar.

    Attributes:
        height: how many levels of lists and objects its flattest text has.
        nullable: whether it may be empty.
    """

    __slots__ = ("height", "nullable")

    def __init__(self) -> None:
        self.height = IMPOSSIBLE
        self.nullable = False


class Leaf(Node):
    """A small deterministic automaton. Its states are plain hashable values.

    Attributes:
        trusted: written by the dialect, so that a control token may stand for it.
        loose: control tokens pass as well; free text.
        phase: what an answer is doing while it is here, for people; usually empty.
    """

    __slots__ = ("loose", "phase", "trusted")

    def __init__(self, trusted: bool = False, loose: bool = False, phase: str = "") -> None:
        super().__init__()
        self.trusted = trusted
        self.loose = loose
        self.phase = phase

    @property
    def possible(self) -> bool:
        """Whether any text at all can be written."""
        return True

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


class Alt(Node):
    """One of them. Without any, nothing."""

    __slots__ = ("options",)

    def __init__(self, *options: Node) -> None:
        super().__init__()
        self.options = tuple(dict.fromkeys(options))


class Repeat(Node):
    """``low`` to ``high`` times (None: without end) ``item``, with ``separator`` between two of them."""

    __slots__ = ("high", "item", "low", "separator")

    def __init__(self, item: Node, low: int, high: int | None, separator: Node | None = None) -> None:
        super().__init__()
        self.item = item
        self.low = low
        self.high = high
        self.separator = separator


class Nest(Node):
    """A list or an object: one level more of nesting, and nesting has a limit."""

    __slots__ = ("inner",)

    def __init__(self, inner: Node) -> None:
        super().__init__()
        self.inner = inner


class Fresh(Node):
    """Members of an object whose names are free but must differ.

    Args:
        kinds: of members: what stands before the name, the names, and what follows.
        low, high: how many members; ``high`` None for any number.
        comma: what stands between two members.
        led: a member stands before the first of these.
    """

    __slots__ = ("first", "high", "led", "low", "more", "names", "tails")

    def __init__(
        self, kinds: Sequence[tuple[Node, FreshNames, Node]], low: int, high: int | None, comma: Node, led: bool
    ) -> None:
        super().__init__()
        self.first = tuple(before for before, _, _ in kinds)
        self.more = tuple(Seq(comma, before) for before in self.first)
        self.names = tuple(names for _, names, _ in kinds)
        self.tails = tuple(tail for _, _, tail in kinds)
        self.low = low
        self.high = high
        self.led = led


class FreshNames:
    """The names of one kind of free members."""

    def leaf(self, taken: frozenset[str]) -> Leaf | None:
        """What reads a name that is not taken; None when none is left."""
        raise NotImplementedError

    def enough(self, count: int) -> bool:
        """Whether there are at least so many names."""
        raise NotImplementedError


class Ref(Node):
    """What is defined elsewhere, perhaps around this very place. ``target`` is set when it is known."""

    __slots__ = ("target",)

    def __init__(self) -> None:
        super().__init__()
        self.target: Node | None = None


def _parts(node: Node) -> Sequence[Node]:
    if isinstance(node, Seq):
        return node.items
    if isinstance(node, Alt):
        return node.options
    if isinstance(node, Repeat):
        return (node.item,) if node.separator is None else (node.item, node.separator)
    if isinstance(node, Ref):
        assert node.target is not None
        return (node.target,)
    if isinstance(node, Nest):
        return (node.inner,)
    if isinstance(node, Fresh):
        return (*node.tails, *node.first, *node.more)
    return ()


def _height(node: Node) -> int:
    if isinstance(node, Leaf):
        return 0 if node.possible else IMPOSSIBLE
    if isinstance(node, Seq):
        return max((item.height for item in node.items), default=0)
    if isinstance(node, Alt):
        return min((option.height for option in node.options), default=IMPOSSIBLE)
    if isinstance(node, Repeat):
        if node.low == 0:
            return 0
        separator = node.separator.height if node.separator is not None and node.low > 1 else 0
        return max(node.item.height, separator)
    if isinstance(node, Nest):
        return min(IMPOSSIBLE, node.inner.height + 1)
    if isinstance(node, Fresh):
        if node.low == 0:
            return 0
        able = [tail.height for names, tail in zip(node.names, node.tails, strict=True) if names.enough(node.low)]
        return min(able, default=IMPOSSIBLE)
    assert isinstance(node, Ref)
    assert node.target is not None
    return node.target.height


def _nullable(node: Node) -> bool:
    if isinstance(node, Leaf):
        return node.possible and node.accepting(node.start())
    if isinstance(node, Seq):
        return all(item.nullable for item in node.items)
    if isinstance(node, Alt):
        return any(option.nullable for option in node.options)
    if isinstance(node, Repeat):
        return node.low == 0
    if isinstance(node, Nest):
        return node.inner.nullable
    if isinstance(node, Fresh):
        return node.low == 0
    assert isinstance(node, Ref)
    assert node.target is not None
    return node.target.nullable


def settle(root: Node) -> Node:
    """Compute ``height`` and ``nullable`` of everything that can be reached, and return ``root``.

    Raises:
        ValueError: something nullable is repeated, so that a text could be read in endless ways.
    """
    order: list[Node] = []
    seen = {id(root)}
    stack: list[tuple[Node, int]] = [(root, 0)]
    while stack:  # parts before wholes, so that one round is mostly enough
        node, at = stack.pop()
        parts = _parts(node)
        if at == len(parts):
            order.append(node)
            continue
        stack.append((node, at + 1))
        if id(parts[at]) not in seen:
            seen.add(id(parts[at]))
            stack.append((parts[at], 0))
    changed = True
    while changed:
        changed = False
        for node in order:
            height, nullable = _height(node), _nullable(node)
            if height < node.height or nullable != node.nullable:
                node.height, node.nullable = height, nullable
                changed = True
    for node in order:
        if isinstance(node, Repeat) and node.item.nullable:
            raise ValueError("a grammar repeats what may be empty")
    return root
