"""Reading a text along a grammar: immutable states, each a small set of threads, with their ways on remembered."""

from __future__ import annotations

from typing import Any

from agent.grammar.fresh import Fresh
from agent.grammar.nodes import Alt, Leaf, Nest, Node, Ref, Repeat, Seq

MAX_DEPTH = 60  # lists and objects inside one another; what reads a call takes 64
_MAX_THREADS = 400
_MAX_STEPS = 16_384  # remembered by a grammar, some 100 bytes each with the states they lead to; a long call takes a few thousand
_MAX_FORCED = 8192  # characters

_UNKNOWN: Any = object()


class Frame:
    """What comes after a leaf: part ``index`` of ``node`` and the rest of it, then ``rest``. The last one has no node.

    Of free members, the index is a step and the names that are taken.
    """

    __slots__ = ("children", "depth", "index", "node", "opened", "rest")

    def __init__(self, node: Node | None, index: Any, rest: Frame | None, depth: int) -> None:
        self.node = node
        self.index = index
        self.rest = rest
        self.depth = depth
        self.children: dict[tuple[int, Any, int], Frame] = {}
        self.opened: tuple[tuple[Thread, ...], bool] | None = None

    def push(self, node: Node, index: Any, depth: int) -> Frame:
        """The frame of ``node`` on top of this one; always the same for the same, so that equal threads are found equal."""
        key = (id(node), index, depth)
        child = self.children.get(key)
        if child is None:
            child = self.children[key] = Frame(node, index, self, depth)
        return child


Thread = tuple[Leaf, Any, Frame]
_Stack = list[tuple[Node | None, Any, Frame | None, int]]


def _open(frame: Frame) -> tuple[tuple[Thread, ...], bool]:
    """The threads that begin at a frame, and whether the whole text may end there."""
    if frame.opened is not None:
        return frame.opened
    threads: dict[Thread, None] = {}
    complete = False
    seen: dict[tuple[int, Any, int], int] = {}
    stack: _Stack = [(frame.node, frame.index, frame.rest, frame.depth)]
    while stack:
        node, index, rest, depth = stack.pop()
        if node is None:
            complete = True
            continue
        assert rest is not None
        key = (id(node), index, id(rest))
        if seen.get(key, depth + 1) <= depth:
            continue
        seen[key] = depth
        # Once begun, a node's parts are all within the height that was checked for the whole.
        if index == 0 and depth + node.height > MAX_DEPTH:
            continue
        if isinstance(node, Leaf):
            state = node.start()
            if node.open(state):
                threads[(node, state, rest)] = None
            if node.accepting(state):
                stack.append((rest.node, rest.index, rest.rest, rest.depth))
        elif isinstance(node, Seq):
            if index + 1 < len(node.items):
                stack.append((node.items[index], 0, rest.push(node, index + 1, depth), depth))
            elif node.items:
                stack.append((node.items[index], 0, rest, depth))
            else:
                stack.append((rest.node, rest.index, rest.rest, rest.depth))
        elif isinstance(node, Alt):
            stack.extend((option, 0, rest, depth) for option in reversed(node.options))
        elif isinstance(node, Repeat):
            _repeat(stack, node, index, rest, depth)
        elif isinstance(node, Nest):
            stack.append((node.inner, 0, rest, depth + 1))
        elif isinstance(node, Fresh):
            _fresh(stack, threads, node, index or ("member", frozenset()), rest, depth)
        else:
            assert isinstance(node, Ref)
            stack.append((node.target, 0, rest, depth))
    # Each thread alone can be ended, so leaving some out of very many is safe.
    frame.opened = tuple(threads)[:_MAX_THREADS], complete
    return frame.opened


def _repeat(stack: _Stack, node: Repeat, count: int, rest: Frame, depth: int) -> None:
    """``count`` is how many items there are so far; a negative one, that its separator has been written as well."""
    if count < 0:
        stack.append((node.item, 0, rest.push(node, -count, depth), depth))
        return
    if count >= node.low:
        stack.append((rest.node, rest.index, rest.rest, rest.depth))
    if node.high is not None and count >= node.high:
        return
    if depth + node.item.height > MAX_DEPTH:
        return
    following = count + 1
    if node.high is None:
        following = min(following, max(node.low, 1))  # one frame for all that are alike
    if count > 0 and node.separator is not None:
        stack.append((node.separator, 0, rest.push(node, -following, depth), depth))
    else:
        stack.append((node.item, 0, rest.push(node, following, depth), depth))


def _fresh(stack: _Stack, threads: dict[Thread, None], node: Fresh, index: Any, rest: Frame, depth: int) -> None:
    """One step of free members: before a member, before its name, or behind it."""
    step, taken, *kind = index
    if step == "value":
        stack.append((node.tails[kind[0]], 0, rest.push(node, ("member", taken), depth), depth))
        return
    if step == "name":
        leaf = node.names[kind[0]].leaf(taken)
        assert leaf is not None
        start = leaf.start()
        threads[(leaf, start, rest.push(node, index, depth))] = None
        if leaf.accepting(start):  # a name may be empty
            stack.append((node, ("value", taken | {""}, kind[0]), rest, depth))
        return
    if len(taken) >= node.low:
        stack.append((rest.node, rest.index, rest.rest, rest.depth))
    if node.high is not None and len(taken) >= node.high:
        return
    for number, (names, tail) in enumerate(zip(node.names, node.tails, strict=True)):
        if depth + tail.height <= MAX_DEPTH and names.leaf(taken) is not None:
            head = node.more[number] if node.led or taken else node.first[number]
            stack.append((head, 0, rest.push(node, ("name", taken, number), depth), depth))


class State:
    """Where a text stands in a grammar. Immutable.

    Attributes:
        threads: the ways in which it can be read, none of them a dead end.
        complete: whether it may end here.
    """

    __slots__ = ("_grammar", "_next", "_special", "complete", "threads")

    def __init__(self, grammar: Grammar, threads: tuple[Thread, ...], complete: bool) -> None:
        self._grammar = grammar
        self.threads = threads
        self.complete = complete
        self._next: dict[str, State | None] = {}
        self._special: dict[str, State | None] = {}

    def advance(self, text: str, special: bool = False) -> State | None:
        """The state after ``text``, or None if it may not come next.

        A text that is ``special`` is a control token, which stands only for what the dialect writes, or in free text.
        """
        at: State | None = self
        for char in text:
            known = at._special if special else at._next  # type: ignore[union-attr]
            following = known.get(char, _UNKNOWN)
            if following is _UNKNOWN:
                following = known[char] = at._step(char, special)  # type: ignore[union-attr]
            if following is None:
                return None
            at = following
        return at

    def _step(self, char: str, special: bool) -> State | None:
        self._grammar.note_step()
        threads: dict[Thread, None] = {}
        complete = False
        for leaf, state, frame in self.threads:
            if special and not (leaf.trusted or leaf.loose):
                continue
            following = leaf.step(state, char)
            if following is None:
                continue
            if leaf.open(following):
                threads[(leaf, following, frame)] = None
            if leaf.accepting(following):
                name = leaf.name(following)
                if name is not None:
                    assert frame.rest is not None
                    assert frame.node is not None
                    frame = frame.rest.push(frame.node, ("value", frame.index[1] | {name}, frame.index[2]), frame.depth)
                more, ends = _open(frame)
                threads.update(dict.fromkeys(more))
                complete = complete or ends
        if not threads and not complete:
            return None
        return self._grammar.state(tuple(threads)[:_MAX_THREADS], complete)

    def unlinked(self) -> list[State]:
        """The states that were met behind this one, which forgets them."""
        found = [state for state in (*self._next.values(), *self._special.values()) if state is not None]
        self._next, self._special = {}, {}
        return found

    def next_chars(self) -> frozenset[str] | None:
        """The characters that may come next; None when they are too many to list."""
        out: frozenset[str] = frozenset()
        for leaf, state, _ in self.threads:
            first = leaf.first(state)
            if first is None:
                return None
            out |= first
        return out

    def any_in(self, low: int, high: int) -> bool:
        """Whether a character with a code point from ``low`` to ``high`` may come next."""
        return any(leaf.any_in(state, low, high) for leaf, state, _ in self.threads)

    def forced(self) -> list[tuple[str, bool]]:
        """The text that must come next, in stretches with whether the dialect wrote them; empty where there is a choice."""
        out: list[tuple[str, bool]] = []
        at: State = self
        for _ in range(_MAX_FORCED):
            chars = None if at.complete else at.next_chars()
            if chars is None or len(chars) != 1:
                break
            (char,) = chars
            trusted = all(leaf.trusted for leaf, _, _ in at.threads)
            if out and out[-1][1] is trusted:
                out[-1] = (out[-1][0] + char, trusted)
            else:
                out.append((char, trusted))
            following = at.advance(char)
            assert following is not None
            at = following
        return out


class Grammar:
    """A settled grammar and the states that were met in it."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self._bottom = Frame(None, 0, None, 0)
        self._states: dict[tuple[tuple[Thread, ...], bool], State] = {}
        self._start: State | None = None
        self._steps = 0  # that are remembered

    def start(self) -> State:
        """The state of the empty text. Nothing can be written when it has no threads and is not complete."""
        self._start = self._start or self.state(*_open(self._bottom.push(self.root, 0, 0)))
        return self._start

    def state(self, threads: tuple[Thread, ...], complete: bool) -> State:
        key = (threads, complete)
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = State(self, threads, complete)
        return state

    def note_step(self) -> None:
        """A step is remembered from now on, also one that may not be taken; when they are too many, all are forgotten."""
        self._steps += 1
        if self._steps > _MAX_STEPS:
            self._steps = 0
            self._forget()

    def _forget(self) -> None:
        """Give up what is remembered. States and frames lead to others, so what lives must let go of them too."""
        states = [*self._states.values(), *([self._start] if self._start else [])]
        self._states.clear()
        while states:
            states += states.pop().unlinked()
        frames = [self._bottom]
        while frames:
            frame = frames.pop()
            frames += frame.children.values()
            frame.children, frame.opened = {}, None
