"""Regular expressions of JSON Schema as automata.

The dialect is what ECMA-262 and Python's ``re`` have in common: ``\\d``, ``\\w`` and ``\\s`` mean ASCII, ``.`` is anything but
the end of a line, and a pattern may match anywhere unless it is anchored.
"""

from __future__ import annotations

import re
import re._constants as op  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from functools import lru_cache
from typing import Any

from agent.errors import SchemaError
from agent.grammar.automata.dfa import EVERY, Dfa, Ranges, TooLargeError, alphabet_of, build, characters, complement, union
from agent.text import display

_MAX_PATTERN = 4000  # characters
_MAX_STATES = 20_000
_MAX_WORK = 1_500_000  # states of the pattern visited while it is made deterministic

_DIGIT: Ranges = ((48, 57),)
_WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE = characters(" \t\n\r\f\v")
_CATEGORIES: dict[Any, Ranges] = {
    op.CATEGORY_DIGIT: _DIGIT, op.CATEGORY_NOT_DIGIT: complement(_DIGIT),
    op.CATEGORY_WORD: _WORD, op.CATEGORY_NOT_WORD: complement(_WORD),
    op.CATEGORY_SPACE: _SPACE, op.CATEGORY_NOT_SPACE: complement(_SPACE),
}  # fmt: skip
_DOT = complement(characters("\n\r\u2028\u2029"))


class NotRegularError(Exception):
    """A pattern that no automaton can stand for, or that ``re`` does not know."""


def python_pattern(pattern: str) -> str:
    """A pattern of ECMA-262 as Python writes it: named groups only."""
    return re.sub(r"\(\?<(?=[A-Za-z_])", "(?P<", pattern)


class _Nfa:
    """Thompson's construction, with two kinds of edges more: at the text's beginning and at its end."""

    def __init__(self) -> None:
        self.free: list[list[int]] = []
        self.begin: list[list[int]] = []
        self.end: list[list[int]] = []
        self.eats: list[tuple[Ranges, int] | None] = []

    def state(self) -> int:
        if len(self.free) >= _MAX_STATES:
            raise TooLargeError
        for edges in (self.free, self.begin, self.end):
            edges.append([])
        self.eats.append(None)
        return len(self.free) - 1

    def eat(self, at: int, ranges: Ranges) -> int:
        node, after = self.state(), self.state()
        self.free[at].append(node)
        self.eats[node] = (ranges, after)
        return after

    def sequence(self, at: int, items: Any) -> int:
        for kind, value in items:
            at = self.item(at, kind, value)
        return at

    def item(self, at: int, kind: Any, value: Any) -> int:
        if kind is op.LITERAL:
            return self.eat(at, ((value, value),))
        if kind is op.NOT_LITERAL:
            return self.eat(at, complement(((value, value),)))
        if kind is op.ANY:
            return self.eat(at, _DOT)
        if kind is op.IN:
            return self.eat(at, _set(value))
        if kind is op.SUBPATTERN:
            _, add, remove, items = value
            if add or remove:
                raise NotRegularError("it sets flags")
            return self.sequence(at, items)
        if kind is op.BRANCH:
            after = self.state()
            for items in value[1]:
                begin = self.state()
                self.free[at].append(begin)
                self.free[self.sequence(begin, items)].append(after)
            return after
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            return self.repeat(at, *value)
        if kind is op.AT and value in (op.AT_BEGINNING, op.AT_BEGINNING_STRING, op.AT_END, op.AT_END_STRING):
            after = self.state()
            begins = value in (op.AT_BEGINNING, op.AT_BEGINNING_STRING)
            (self.begin if begins else self.end)[at].append(after)
            return after
        raise NotRegularError(f"it uses {str(kind).lower()}")

    def repeat(self, at: int, low: int, high: Any, items: Any) -> int:
        for _ in range(low):
            at = self.sequence(self.link(at), items)
        after = self.state()
        if high is op.MAXREPEAT:
            loop = self.state()
            self.free[at].append(loop)
            self.free[loop].append(after)
            self.free[self.sequence(self.link(loop), items)].append(loop)
            return after
        for _ in range(high - low):
            self.free[at].append(after)
            at = self.sequence(self.link(at), items)
        self.free[at].append(after)
        return after

    def link(self, at: int) -> int:
        after = self.state()  # also what makes an empty item count, so that a bomb of nothing is one too
        self.free[at].append(after)
        return after


def _set(items: Any) -> Ranges:
    parts: list[Ranges] = []
    negated = False
    for kind, value in items:
        if kind is op.NEGATE:
            negated = True
        elif kind is op.LITERAL:
            parts.append(((value, value),))
        elif kind is op.RANGE:
            parts.append(((value[0], value[1]),))
        elif kind is op.CATEGORY and value in _CATEGORIES:
            parts.append(_CATEGORIES[value])
        else:
            raise NotRegularError(f"it uses {str(kind).lower()}")
    ranges = union(parts)
    return complement(ranges) if negated else ranges


def _deterministic(nfa: _Nfa, final: int) -> Dfa:
    sets = list({eats[0] for eats in nfa.eats if eats})
    alphabet, classes = alphabet_of(sets)
    members = dict(zip(sets, classes, strict=True))
    work = 0

    def closure(states: set[int], begin: bool, end: bool) -> frozenset[int]:
        nonlocal work
        seen, stack = set(states), list(states)
        while stack:
            at = stack.pop()
            work += 1
            following = nfa.free[at]
            if begin:
                following = following + nfa.begin[at]
            if end:
                following = following + nfa.end[at]
            for target in following:
                if target not in seen:
                    seen.add(target)
                    stack.append(target)
        if work > _MAX_WORK:
            raise TooLargeError
        return frozenset(seen)

    # The first state is a key of its own: only there a text begins.
    rows: dict[tuple[frozenset[int], bool], dict[int, set[int]]] = {}

    def row(key: tuple[frozenset[int], bool]) -> dict[int, set[int]]:
        out: dict[int, set[int]] = {}
        for state in key[0]:
            eats = nfa.eats[state]
            if eats:
                for k in members[eats[0]]:
                    out.setdefault(k, set()).add(eats[1])
        return out

    def step(key: tuple[frozenset[int], bool], k: int) -> tuple[frozenset[int], bool] | None:
        if key not in rows:
            rows.clear()
            rows[key] = row(key)
        targets = rows[key].get(k)
        return (closure(targets, False, False), False) if targets else None

    def ends(key: tuple[frozenset[int], bool]) -> bool:
        return final in key[0] or final in closure(set(key[0]), key[1], True)

    return build(alphabet, (closure({0}, True, False), True), step, ends)


@lru_cache(maxsize=256)
def compile_pattern(pattern: str, whole: bool = False) -> Dfa:
    """The automaton of the texts in which ``pattern`` is found.

    Args:
        pattern: as JSON Schema has it.
        whole: the pattern must match from the text's beginning to its end.

    Raises:
        NotRegularError: it looks around or back, or is not understood.
        SchemaError: it is too large; the message says so in one line.
        TooLargeError: it is of reasonable size, but its automaton is not.
    """
    shown = display(pattern[:60])
    if len(pattern) > _MAX_PATTERN:
        raise SchemaError(f"the pattern {shown}... has {len(pattern)} characters; more than {_MAX_PATTERN} are not accepted")
    try:
        tree = parser.parse(python_pattern(pattern))
        if tree.state.flags & ~re.UNICODE:
            raise NotRegularError("it sets flags")
        nfa = _Nfa()
        at = nfa.state()
        if not whole:
            after = nfa.eat(at, EVERY)
            nfa.free[after].append(at)
        try:
            final = nfa.sequence(nfa.link(at), tree)
        except TooLargeError:
            raise SchemaError(f"the pattern {shown} repeats too much; write it with fewer or smaller repeats") from None
        if not whole:
            nfa.free[nfa.eat(final, EVERY)].append(final)
        return _deterministic(nfa, final)
    except re.error as error:
        raise NotRegularError(f"it is not understood: {error}") from None
    except (RecursionError, OverflowError):
        raise SchemaError(f"the pattern {shown} is nested too deeply or counts too far; write a simpler one") from None
