"""Deterministic automata over Unicode: trimmed, so that what is begun can always be ended."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

Ranges = tuple[tuple[int, int], ...]  # code points, both ends included, sorted, apart

LAST = 0x10FFFF
EVERY: Ranges = ((0, LAST),)
_MAX_STATES = 6000
_MAX_CELLS = 1_000_000  # states times character classes: what bounds time and memory
_MAX_LISTED = 256  # characters that are still listed one by one

Key = TypeVar("Key", bound=Hashable)


class TooLargeError(Exception):
    """An automaton grew past what is reasonable."""


def complement(ranges: Ranges) -> Ranges:
    """All code points that are not in ``ranges``."""
    out, at = [], 0
    for low, high in ranges:
        if low > at:
            out.append((at, low - 1))
        at = high + 1
    if at <= LAST:
        out.append((at, LAST))
    return tuple(out)


def union(sets: Iterable[Ranges]) -> Ranges:
    """The code points of all ``sets``."""
    out: list[tuple[int, int]] = []
    for low, high in sorted(r for ranges in sets for r in ranges):
        if out and low <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(high, out[-1][1]))
        else:
            out.append((low, high))
    return tuple(out)


def characters(text: str) -> Ranges:
    """The code points of ``text``'s characters."""
    return union(((ord(c), ord(c)),) for c in text)


@dataclass(frozen=True, slots=True)
class Alphabet:
    """Unicode cut into classes that an automaton does not tell apart.

    Attributes:
        cuts: where each stretch of code points begins; the first is 0.
        classes: the class of each stretch; -1 for surrogates, which no text holds.
        count: number of classes.
    """

    cuts: tuple[int, ...]
    classes: tuple[int, ...]
    count: int

    def of(self, code: int) -> int:
        return self.classes[bisect_right(self.cuts, code) - 1]

    def within(self, low: int, high: int) -> set[int]:
        """The classes that have a member from ``low`` to ``high``."""
        first, last = bisect_right(self.cuts, low) - 1, bisect_right(self.cuts, high)
        return {k for k in self.classes[first:last] if k >= 0}


def _alphabet(cuts: Iterable[int], signature: Callable[[int], Hashable]) -> tuple[Alphabet, list[Any]]:
    """The coarsest alphabet, and what each class was told apart by."""
    places = sorted({0, 0xD800, 0xE000, *(c for c in cuts if c <= LAST)})
    ids: dict[Hashable, int] = {}
    classes = []
    for place in places:
        if place == 0xD800 or 0xD800 < place < 0xE000:
            classes.append(-1)
        else:
            classes.append(ids.setdefault(signature(place), len(ids)))
    return Alphabet(tuple(places), tuple(classes), len(ids)), list(ids)


def alphabet_of(sets: Sequence[Ranges]) -> tuple[Alphabet, list[frozenset[int]]]:
    """An alphabet that tells ``sets`` apart, and the classes of each of them."""
    events: dict[int, list[int]] = {}
    for number, ranges in enumerate(sets):
        for low, high in ranges:
            events.setdefault(low, []).append(number)
            events.setdefault(high + 1, []).append(number)
    members: dict[int, frozenset[int]] = {}
    inside: set[int] = set()
    for place in sorted({0, 0xD800, 0xE000, *events}):
        inside ^= set(events.get(place, ()))
        members[place] = frozenset(inside)
    alphabet, signatures = _alphabet(events, members.__getitem__)
    return alphabet, [frozenset(k for k, s in enumerate(signatures) if number in s) for number in range(len(sets))]


class Dfa:
    """A trimmed automaton: from every state that it can be in, an end can be reached.

    Attributes:
        alphabet: the classes of characters.
        table: for each state, the next state for each class; -1 where there is none.
        ends: for each state, whether the text may end there.
        start: the first state; -1 when no text at all is accepted.
    """

    __slots__ = ("_ascii", "_first", "_layers", "_reverse", "_ways", "alphabet", "distance", "ends", "start", "table")

    def __init__(self, alphabet: Alphabet, table: list[list[int]], ends: list[bool]) -> None:
        self.alphabet = alphabet
        self.ends = ends
        reverse: list[set[int]] = [set() for _ in table]
        for state, row in enumerate(table):
            for target in row:
                if target >= 0:
                    reverse[target].add(state)
        distance = [0 if end else -1 for end in ends]
        ring = [state for state, end in enumerate(ends) if end]
        steps = 0
        while ring:
            steps += 1
            following = []
            for target in ring:
                for state in reverse[target]:
                    if distance[state] < 0:
                        distance[state] = steps
                        following.append(state)
            ring = following
        self.distance = distance
        self.table = [tuple(t if t >= 0 and distance[t] >= 0 else -1 for t in row) for row in table]
        self.start = 0 if table and distance[0] >= 0 else -1
        self._reverse = reverse
        self._layers: list[frozenset[int]] = [frozenset(s for s, end in enumerate(ends) if end)]
        self._ascii = [alphabet.of(code) for code in range(128)]
        self._first: dict[int, frozenset[str] | None] = {}
        self._ways: dict[int, dict[int, int]] = {}

    def step(self, state: int, char: str) -> int:
        """The next state, -1 if there is none."""
        code = ord(char)
        k = self._ascii[code] if code < 128 else self.alphabet.of(code)
        return self.table[state][k] if k >= 0 else -1

    def targets(self, state: int, low: int, high: int) -> set[int]:
        """The states that the code points from ``low`` to ``high`` lead to."""
        row = self.table[state]
        return {row[k] for k in self.alphabet.within(low, high)} - {-1}

    def first(self, state: int) -> frozenset[str] | None:
        """The characters that may come next; None when they are too many to list."""
        if state not in self._first:
            self._first[state] = self._list(state)
        return self._first[state]

    def _list(self, state: int) -> frozenset[str] | None:
        out: list[str] = []
        for low, high, _ in self._stretches(state):
            if len(out) + high - low > _MAX_LISTED:
                return None
            out.extend(map(chr, range(low, high)))
        return frozenset(out)

    def _stretches(self, state: int) -> Iterator[tuple[int, int, int]]:
        """The code points that may come next: the first and what follows the last of each stretch, and where it leads."""
        cuts, row = (*self.alphabet.cuts, LAST + 1), self.table[state]
        for at, k in enumerate(self.alphabet.classes):
            if k >= 0 and row[k] >= 0:
                yield cuts[at], cuts[at + 1], row[k]

    def ends_within(self, state: int, low: int, high: int | None) -> bool:
        """Whether some text of ``low`` to ``high`` further characters leads to an end."""
        if low <= 0:
            return self.distance[state] >= 0 and (high is None or self.distance[state] <= high)
        # A longer way than low + states holds a circle that can be left out, so looking further finds nothing new.
        limit = low + len(self.table) if high is None else min(high, low + len(self.table))
        while len(self._layers) <= limit:
            if state in self._layers[-1] and len(self._layers) > low:
                return True
            self._layers.append(frozenset(s for t in self._layers[-1] for s in self._reverse[t]))
        return any(state in self._layers[k] for k in range(low, limit + 1))

    def ways(self, state: int) -> dict[int, int]:
        """The next states, and how many characters lead to each."""
        if state not in self._ways:
            out = self._ways[state] = {}
            for low, high, target in self._stretches(state):
                out[target] = out.get(target, 0) + high - low
        return self._ways[state]

    def accepts(self, text: str) -> bool:
        state = self.start
        for char in text:
            if state < 0:
                return False
            state = self.step(state, char)
        return state >= 0 and self.ends[state]


def build(alphabet: Alphabet, start: Key, step: Callable[[Key, int], Key | None], ends: Callable[[Key], bool]) -> Dfa:
    """The automaton whose states are whatever ``step`` makes of ``start``.

    Raises:
        TooLargeError: it has too many states.
    """
    ids: dict[Key, int] = {start: 0}
    order = [start]
    table: list[list[int]] = []
    limit = min(_MAX_STATES, _MAX_CELLS // max(1, alphabet.count))
    for key in order:
        row = []
        for k in range(alphabet.count):
            target = step(key, k)
            if target is None:
                row.append(-1)
                continue
            number = ids.get(target)
            if number is None:
                number = ids[target] = len(order)
                order.append(target)
                if number >= limit:
                    raise TooLargeError
            row.append(number)
        table.append(row)
    return Dfa(alphabet, table, [ends(key) for key in order])


@lru_cache(maxsize=256)
def both(a: Dfa, b: Dfa) -> Dfa:
    """What ``a`` and ``b`` accept both.

    Raises:
        TooLargeError: the product has too many states.
    """
    pairs: list[Any]
    alphabet, pairs = _alphabet((*a.alphabet.cuts, *b.alphabet.cuts), lambda code: (a.alphabet.of(code), b.alphabet.of(code)))
    if a.start < 0 or b.start < 0:
        return Dfa(alphabet, [[-1] * alphabet.count], [False])

    def step(key: tuple[int, int], k: int) -> tuple[int, int] | None:
        left, right = pairs[k]
        s, t = a.table[key[0]][left], b.table[key[1]][right]
        return (s, t) if s >= 0 and t >= 0 else None

    return build(alphabet, (a.start, b.start), step, lambda key: a.ends[key[0]] and b.ends[key[1]])


def negate(a: Dfa) -> Dfa:
    """Every text that ``a`` does not accept."""
    return build(a.alphabet, a.start, lambda s, k: a.table[s][k] if s >= 0 else -1, lambda s: s < 0 or not a.ends[s])


def trie(texts: Iterable[str], most: float = math.inf) -> tuple[list[dict[str, int]], set[int]]:
    """The tree of ``texts``: of each node the next one for a character, and the nodes at which a text ends. Node 0 is the root.

    Raises:
        TooLargeError: it has more than ``most`` nodes.
    """
    nodes: list[dict[str, int]] = [{}]
    ends = set()
    for text in texts:
        at = 0
        for char in text:
            if char not in nodes[at]:
                nodes[at][char] = len(nodes)
                nodes.append({})
                if len(nodes) > most:
                    raise TooLargeError
            at = nodes[at][char]
        ends.add(at)
    return nodes, ends


def _letters(texts: Iterable[str]) -> tuple[Alphabet, dict[int, str]]:
    """An alphabet with a class for each character of ``texts`` and one for all others, and the characters of the classes."""
    chars = sorted({char for text in texts for char in text})
    alphabet, sets = alphabet_of([characters(c) for c in chars])
    return alphabet, {k: c for c, classes in zip(chars, sets, strict=True) for k in classes}


def words(texts: Sequence[str]) -> Dfa:
    """Exactly these texts.

    Raises:
        TooLargeError: they are too many.
    """
    nodes, ends = trie(texts, _MAX_STATES)
    alphabet, name = _letters(texts)
    return build(alphabet, 0, lambda s, k: nodes[s].get(name.get(k, "")), ends.__contains__)


def _searcher(marks: Sequence[str]) -> Callable[[str, str], str]:
    """Aho and Corasick's automaton with its states named by what they have of a mark: the next state for a character."""
    heads = {mark[:n] for mark in marks for n in range(len(mark) + 1)}

    def step(have: str, char: str) -> str:
        have += char
        while have not in heads:
            have = have[1:]
        return have

    return step


@lru_cache(maxsize=64)
def avoiding(marks: tuple[str, ...], closing: str = "") -> Dfa:
    """Texts without any of ``marks``; with ``closing`` behind them, no mark is whole before the end of ``closing``.

    Args:
        marks: not empty, none of them the tail of a head of another.
        closing: one of the marks, or nothing.
    """
    step = _searcher(marks)

    def whole(have: str) -> bool:
        return any(have.endswith(mark) for mark in marks)

    def ends(have: str) -> bool:
        for at, char in enumerate(closing):
            have = step(have, char)
            if whole(have):
                return at == len(closing) - 1
        return not closing

    alphabet, name = _letters(marks)

    def move(have: str, k: int) -> str | None:
        if k not in name:
            return ""
        have = step(have, name[k])
        return None if whole(have) else have

    return build(alphabet, "", move, ends)


@lru_cache(maxsize=64)
def not_starting(marks: tuple[str, ...], blank: str) -> Dfa:
    """Texts that do not begin, after any of the ``blank`` characters, with one of ``marks``."""
    alphabet, name = _letters([*marks, blank])
    other = "".join(marks) + "x"  # what has begun otherwise; longer than any mark

    def move(have: str, k: int) -> str | None:
        char = name.get(k, "")
        if have == other or not char:
            return other
        if not have and char in blank:
            return have
        have += char
        if have in marks:
            return None
        return have if any(mark.startswith(have) for mark in marks) else other

    return build(alphabet, "", move, lambda _: True)
