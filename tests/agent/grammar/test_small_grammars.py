"""The engine against a plain model: every text of a small grammar is written out, and that tells what every beginning allows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import pairwise, product
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.grammar import matcher
from agent.grammar.automata.dfa import words
from agent.grammar.automata.regex import compile_pattern
from agent.grammar.fresh import Fresh, Names
from agent.grammar.leaves import Literal, OneOf, PlainText, Quoted
from agent.grammar.matcher import Grammar, State
from agent.grammar.nodes import Alt, Nest, Node, Ref, Repeat, Seq, settle
from tests.fixtures.generated import runs

SEEDS = st.integers(0, 2**60)
DEPTH = 2  # of nesting, in place of MAX_DEPTH
LONGEST = 4  # of the beginnings that are looked at; what is repeated without end is written out so far
MANY = 400  # texts of a grammar that is still looked at
LETTERS = 'abc,:[]"'

# A text is its characters, each with who wrote it: the dialect a "mark", "free" text, or "" a value.
Text = tuple[tuple[str, str], ...]
Texts = Callable[[int], set[Text]]  # of a part, with so many levels of nesting left
Part = tuple[Node, Texts]


class TooManyError(Exception):
    """A grammar is too large to be written out."""


def bounded(found: Iterable[Text]) -> set[Text]:
    out: set[Text] = set()
    for text in found:
        out.add(text)
        if len(out) > MANY:
            raise TooManyError
    return out


def written(texts: Iterable[str], kind: str = "") -> Texts:
    whole = {tuple((char, kind) for char in text) for text in texts}
    return lambda _: whole


def joined(parts: Iterable[set[Text]]) -> set[Text]:
    whole: set[Text] = {()}
    for part in parts:
        whole = bounded(head + tail for head in whole for tail in part)
    return whole


def a_leaf(r: random.Random) -> Part:
    kind = r.randrange(5)
    if kind < 2:
        text, trusted = r.choice(["", "a", "b", "ab", "c,", ":"]), r.random() < 0.5
        return Literal(text, trusted), written([text], "mark" if trusted else "")
    if kind == 2:
        texts = r.sample(["", "a", "ab", "abc", "b", "ca"], r.randint(0, 4))
        return OneOf(texts), written(texts)
    if kind == 3:
        texts = r.sample(["a", "ab", "c"], r.randint(0, 2))
        return Quoted(PlainText(words(texts))), written(f'"{text}"' for text in texts)
    low, high, loose = r.randint(0, 2), r.randint(0, 2), r.random() < 0.5
    texts = ["".join(chars) for n in range(low, high + 1) for chars in product("ab", repeat=n)]
    return PlainText(compile_pattern("^[ab]*$"), low, high, loose=loose), written(texts, "free" if loose else "")


def a_sequence(r: random.Random, parts: list[Part]) -> Part:
    return Seq(*(node for node, _ in parts)), lambda left: joined(texts(left) for _, texts in parts)


def a_choice(r: random.Random, parts: list[Part]) -> Part:
    return Alt(*(node for node, _ in parts)), lambda left: bounded(text for _, texts in parts for text in texts(left))


def a_repeat(r: random.Random, parts: list[Part]) -> Part:
    item, item_texts = parts[0] if parts else a_leaf(r)
    if () in item_texts(0):  # what may be empty must not be repeated; a level of nesting is never empty
        head, rest = Literal("c"), item_texts
        item, item_texts = Seq(head, item), lambda left: joined([{(("c", ""),)}, rest(left)])
    low = r.randint(0, 2)
    high = r.choice([None, low, low + 1, low + 2])
    comma: Part = (Literal(",", True), written([","], "mark"))
    separators = [(None, written([""])), comma, a_sequence(r, [comma, a_leaf(r)]), a_nest(r, []), *parts[1:2]]
    separator, between = r.choice(separators)

    def texts(left: int) -> set[Text]:
        out: set[Text] = set()
        for count in range(low, (max(low, LONGEST + 1) if high is None else high) + 1):
            out |= joined([between(left), item_texts(left)][n % 2 == 0] for n in range(2 * count - 1)) if count else {()}
        return bounded(out)

    return Repeat(item, low, high, separator), texts


def a_nest(r: random.Random, parts: list[Part]) -> Part:
    node, texts = a_sequence(r, [(Literal("["), written(["["])), *parts, (Literal("]"), written(["]"]))])
    return Nest(node), lambda left: texts(left - 1) if left > 0 else set()


def a_definition(r: random.Random, parts: list[Part]) -> Part:
    """Something that may hold itself, in another level."""
    ref = Ref()
    inner: Part = a_nest(r, [a_choice(r, [(Alt(), written([])), (Literal(""), written([""])), (ref, lambda left: texts(left))])])
    ref.target, texts = a_choice(r, [inner, *parts[:2]])
    return ref, texts


def members(r: random.Random, parts: list[Part]) -> Part:
    """Members whose names must differ: before NAME tail, with a comma between two."""
    kinds, plain = [], []
    for _ in range(r.randint(1, 2)):
        names, quoted = r.sample(["", "a", "b", "ab"], r.randint(0, 3)), r.random() < 0.5
        before, before_texts = r.choice([(Literal(""), written([""])), (Literal("c", True), written(["c"], "mark"))])
        nested = [a_nest(r, parts[:1])]
        value = r.choice([parts[:1], parts[:1], nested, [a_nest(r, nested)], [(Alt(), written([]))]])
        tail, tail_texts = a_sequence(r, [(Literal(":"), written([":"])), *value])
        kinds.append((before, Names(PlainText(words(names)), Quoted if quoted else lambda text: text), tail))
        plain.append((names, '"%s"' if quoted else "%s", before_texts, tail_texts))
    low = r.randint(0, 2)
    high = r.choice([None, low, low + 1])
    led = r.random() < 0.5

    def texts(left: int) -> set[Text]:
        if low and not any(len(names) >= low and tail(left) for names, _, _, tail in plain):
            return set()
        out, stack = set(), [(frozenset[str](), {()})]
        while stack:
            taken, so_far = stack.pop()
            if len(taken) >= low:
                out |= so_far
            if len(taken) == high:
                continue
            comma = written(["," if led or taken else ""])(0)
            for names, form, before, tail in plain:
                for name in set(names) - taken:
                    member = [so_far, comma, before(left), written([form % name])(0), tail(left)]
                    stack.append((taken | {name}, joined(member)))
        return bounded(out)

    return Fresh(kinds, low, high, Literal(","), led), texts


def a_part(r: random.Random, depth: int) -> Part:
    if depth == 0 or r.random() < 0.2:
        return a_leaf(r)
    parts = [a_part(r, depth - 1) for _ in range(r.randint(0, 3))]
    return r.choice([a_sequence, a_sequence, a_choice, a_choice, a_repeat, a_repeat, a_nest, a_definition, members, members])(
        r, parts
    )


def following(texts: Iterable[Text], at: int) -> dict[str, set[Text]]:
    out: dict[str, set[Text]] = {}
    for text in texts:
        if len(text) > at:
            out.setdefault(text[at][0], set()).add(text)
    return out


def forced(texts: set[Text], at: int) -> list[tuple[str, bool]]:
    """Character by character, what must come next, and whether only a dialect's mark can be there."""
    out = []
    while at < LONGEST and not any(len(text) == at for text in texts) and len(ways := following(texts, at)) == 1:
        ((char, texts),) = ways.items()
        out.append((char, all(text[at][1] == "mark" for text in texts)))
        at += 1
    return out


def compare(state: State, texts: set[Text], at: int) -> None:
    """A state with the texts that begin as what has been written, of ``at`` characters."""
    ways = following(texts, at)
    assert state.complete == any(len(text) == at for text in texts)
    assert state.next_chars() == ways.keys()
    for low, high in (("a", "a"), ("b", "b"), (",", ":"), ("b", "z"), ("[", "]")):
        assert state.any_in(ord(low), ord(high)) == any(low <= char <= high for char in ways)
    stretches = state.forced()
    assert all(one[1] is not other[1] for one, other in pairwise(stretches))
    assert [(char, trusted) for text, trusted in stretches for char in text][: LONGEST - at] == forced(texts, at)
    for char in LETTERS:
        for special in (False, True):
            left = {text for text in ways.get(char, ()) if not special or text[at][1]}
            further = state.advance(char, special)
            assert (further is not None) == bool(left), (char, special)
            if further is not None and at < LONGEST:
                compare(further, left, at + 1)


@pytest.mark.slow
@given(SEEDS)
@settings(max_examples=runs(2000), deadline=None, derandomize=True)
def test_every_beginning_allows_what_the_texts_that_begin_so_go_on_with(seed: int) -> None:
    try:
        node, texts = a_part(random.Random(seed), 3)
        whole = texts(DEPTH)
    except TooManyError:
        return
    with mock.patch.object(matcher, "MAX_DEPTH", DEPTH):
        compare(Grammar(settle(node)).start(), whole, 0)
