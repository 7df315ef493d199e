"""The leaves of a grammar that are texts: fixed ones, one of many, plain text, and strings in quotes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent.grammar.automata.dfa import LAST, Dfa, trie
from agent.grammar.nodes import Leaf

_NOTHING: frozenset[str] = frozenset()
_MAX_COUNTED = 1000  # characters of texts that are counted


class Literal(Leaf):
    """One text, perhaps an empty one. A state is how much of it has been written."""

    __slots__ = ("_first", "text")

    def __init__(self, text: str, trusted: bool = False) -> None:
        super().__init__(trusted=trusted)
        self.text = text
        self._first: list[frozenset[str]] = [*(frozenset(char) for char in text), _NOTHING]

    def start(self) -> Any:
        return 0

    def step(self, state: Any, char: str) -> Any:
        return state + 1 if state < len(self.text) and self.text[state] == char else None

    def accepting(self, state: Any) -> bool:
        return bool(state == len(self.text))

    def open(self, state: Any) -> bool:
        return bool(state < len(self.text))

    def first(self, state: Any) -> frozenset[str] | None:
        at: int = state
        return self._first[at]


class OneOf(Leaf):
    """One of many texts, in a tree. A state is a node of it."""

    __slots__ = ("_ends", "_nodes")

    def __init__(self, texts: Iterable[str]) -> None:
        super().__init__()
        self._nodes, self._ends = trie(texts)

    def start(self) -> Any:
        return 0

    def step(self, state: Any, char: str) -> Any:
        return self._nodes[state].get(char)

    def accepting(self, state: Any) -> bool:
        return state in self._ends

    def open(self, state: Any) -> bool:
        return bool(self._nodes[state])

    def first(self, state: Any) -> frozenset[str] | None:
        return frozenset(self._nodes[state])


class PlainText(Leaf):
    """A text as it is, of which an automaton and bounds on the number of code points say what it may be.

    A state is (the automaton's, how many characters so far as long as that matters); every state can be ended.
    """

    __slots__ = ("dfa", "high", "low")

    def __init__(
        self, dfa: Dfa | None = None, low: int = 0, high: int | None = None, *, loose: bool = False, phase: str = ""
    ) -> None:
        super().__init__(loose=loose, phase=phase)
        self.dfa = dfa
        self.low = low
        self.high = high

    @property
    def possible(self) -> bool:
        if self.dfa is None:
            return self.high is None or self.low <= self.high
        return self.dfa.start >= 0 and self.dfa.ends_within(self.dfa.start, self.low, self.high)

    def start(self) -> Any:
        return (0 if self.dfa is None else self.dfa.start, 0)

    def step(self, state: Any, char: str) -> Any:
        at, count = state
        if self.dfa is not None:
            at = self.dfa.step(at, char)
            if at < 0:
                return None
        return self._counted(at, count)

    def _counted(self, at: int, count: int) -> Any:
        if self.high is not None:
            if count >= self.high:
                return None
            count += 1
        elif count < self.low:
            count += 1
        elif self.dfa is None:
            return (at, count)
        if self.dfa is not None and (self.low or self.high is not None):
            left = None if self.high is None else self.high - count
            if not self.dfa.ends_within(at, self.low - count, left):
                return None
        return (at, count)

    def more_than(self, state: Any, number: int) -> bool:
        """Whether more than ``number`` texts go on from here; False when that takes too long to find out."""
        at, count = state
        if self.dfa is None:
            return self.high is None or count < self.high or number < 1
        found, ways = 0, {at: 1}
        for length in range(count, min(_MAX_COUNTED if self.high is None else self.high, count + _MAX_COUNTED) + 1):
            if length >= self.low:
                found += sum(n for s, n in ways.items() if self.dfa.ends[s])
                if found > number:
                    return True
            following: dict[int, int] = {}
            for s, n in ways.items():
                for target, size in self.dfa.ways(s).items():
                    following[target] = min(following.get(target, 0) + n * size, 1 << 30)
            ways = following
        return False

    def accepts(self, text: str) -> bool:
        state = self.start() if self.possible else None
        for char in text:
            state = None if state is None else self.step(state, char)
        return state is not None and self.accepting(state)

    def accepting(self, state: Any) -> bool:
        return bool(state[1] >= self.low and (self.dfa is None or self.dfa.ends[state[0]]))

    def any_in(self, state: Any, low: int, high: int) -> bool:
        if low > high:
            return False
        at, count = state
        if self.dfa is None:
            return self.high is None or count < self.high
        return any(self._counted(target, count) is not None for target in self.dfa.targets(at, low, high))

    def first(self, state: Any) -> frozenset[str] | None:
        at, count = state
        if self.high is not None and count >= self.high:
            return _NOTHING
        if self.dfa is None:
            return None
        chars = self.dfa.first(at)
        if chars is None or not (self.low or self.high is not None):
            return chars if chars is not None or self.any_in(state, 0, LAST) else _NOTHING
        return frozenset(char for char in chars if self.step(state, char) is not None)


_ESCAPES = {'"': '"', "\\": "\\", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX = "0123456789abcdefABCDEF"
# What of a string has been written; a state is one of these, the text's state, and what \u has so far.
_BEFORE, _BODY, _SLASH, _DIGITS, _PAIR_SLASH, _PAIR_U, _DONE = range(7)


class Quoted(Leaf):
    """A string between ``"`` with the escapes of JSON, around a text that is allowed as it reads without them.

    Where the text is unlimited in its characters, all may be escaped. Where an automaton says which come next, printable ASCII is
    written as it is, so that what is forced stays forced.

    Args:
        text: what it may say.
        json: also ``\\/`` and pairs of surrogates; without, only what JSON and Python read alike.
    """

    __slots__ = ("_json", "text")

    def __init__(self, text: PlainText, json: bool = True) -> None:
        super().__init__()
        self.text = text
        self._json = json

    @property
    def possible(self) -> bool:
        return self.text.possible

    def start(self) -> Any:
        return (_BEFORE, self.text.start(), None)

    def accepting(self, state: Any) -> bool:
        return bool(state[0] == _DONE)

    def name(self, state: Any) -> str | None:
        return self.text.name(state[1])

    def open(self, state: Any) -> bool:
        return bool(state[0] != _DONE)

    def step(self, state: Any, char: str) -> Any:
        mode, inner, code = state
        if mode == _BODY:
            if char == '"':
                return (_DONE, inner, None) if self.text.accepting(inner) else None
            if char == "\\":
                return (_SLASH, inner, None) if self._escapable(inner) else None
            if char < " ":
                return None
            following = self.text.step(inner, char)
            if following is None:
                return None
            return state if following == inner else (_BODY, following, None)
        if mode == _BEFORE:
            return (_BODY, inner, None) if char == '"' else None
        if mode == _SLASH:
            return self._escape(inner, char)
        if mode == _DIGITS:
            return self._digit(inner, char, *code)
        if mode == _PAIR_SLASH:
            return (_PAIR_U, inner, code) if char == "\\" else None
        if mode == _PAIR_U:
            return (_DIGITS, inner, (0, 0, code)) if char == "u" else None
        return None

    def _escape(self, inner: Any, char: str) -> Any:
        if char == "u":
            return (_DIGITS, inner, (0, 0, 0)) if self._units(inner, 0, 0xFFFF, 0) else None
        meant = _ESCAPES.get(char)
        if char == "/" and self._json and self.text.dfa is None:
            meant = "/"
        if meant is None:
            return None
        following = self.text.step(inner, meant)
        return None if following is None else (_BODY, following, None)

    def _digit(self, inner: Any, char: str, value: int, count: int, lead: int) -> Any:
        if char not in _HEX:
            return None
        value, count = value * 16 + int(char, 16), count + 1
        spread = 16 ** (4 - count)
        if not self._units(inner, value * spread, (value + 1) * spread - 1, lead):
            return None
        if count < 4:
            return (_DIGITS, inner, (value, count, lead))
        if lead:
            value = 0x10000 + (lead - 0xD800) * 0x400 + value - 0xDC00
        elif 0xD800 <= value < 0xDC00:
            return (_PAIR_SLASH, inner, value)
        following = self.text.step(inner, chr(value))
        return None if following is None else (_BODY, following, None)

    def _units(self, inner: Any, low: int, high: int, lead: int) -> bool:
        """Whether a UTF-16 unit from ``low`` to ``high``, after the first half ``lead`` of a pair if any, leads on."""
        if lead:
            base = 0x10000 + (lead - 0xD800) * 0x400 - 0xDC00
            return self.text.any_in(inner, base + max(low, 0xDC00), base + min(high, 0xDFFF))
        spans = [(0, 0xD7FF)] if self.text.dfa is None else [(0, 0x1F), (0x7F, 0xD7FF)]
        if any(self.text.any_in(inner, max(low, a), min(high, b)) for a, b in (*spans, (0xE000, 0xFFFF))):
            return True
        first, last = max(low, 0xD800), min(high, 0xDBFF)
        if not self._json or first > last:
            return False
        return self.text.any_in(inner, 0x10000 + (first - 0xD800) * 0x400, 0x10000 + (last - 0xD800) * 0x400 + 0x3FF)

    def _escapable(self, inner: Any) -> bool:
        return any(self.text.step(inner, meant) is not None for meant in _ESCAPES.values()) or self._units(inner, 0, 0xFFFF, 0)

    def first(self, state: Any) -> frozenset[str] | None:
        mode, inner, _ = state
        if mode == _BODY:
            chars = self.text.first(inner)
            if chars is None:
                return None
            out = {char for char in chars if char >= " " and char not in '"\\'}
            return frozenset(out | {char for char in '"\\' if self.step(state, char) is not None})
        if mode == _BEFORE:
            return frozenset('"')
        if mode == _DONE:
            return _NOTHING
        return frozenset(char for char in "/\\u" + "".join(_ESCAPES) + _HEX if self.step(state, char) is not None)

    def any_in(self, state: Any, low: int, high: int) -> bool:
        if state[0] == _BODY and low >= 0x80:
            return self.text.any_in(state[1], low, high)
        return super().any_in(state, low, high)
