"""What one string or text lets through, character by character, against plain models: all texts, or JSON as Python reads it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.dialects.constrain import Constraint
from agent.dialects.families import HERMES
from agent.grammar.automata.regex import compile_pattern
from agent.grammar.fresh import FreshName
from agent.grammar.leaves import PlainText, Quoted
from agent.grammar.nodes import Leaf
from tests.fixtures.generated import runs

SEEDS = st.integers(0, 2**60)
EDGES = "\x00\x1f\x20\x2f\x7e\x7f\x80\xff\u0100\u07ff\u0800\u0fff\u1000\ud7ff\ue000\ufffe\uffff\U00010000\U000103ff\U00010400"
EDGES += "\U0003ffff\U00040000\U0010fbff\U0010fc00\U0010ffff"  # where UTF-8, UTF-16 and \u with some of its digits begin anew


def agree(leaf: Leaf, state: Any, goes_on: Callable[[str], bool], whole: bool, chars: str, spans: list[tuple[str, str]]) -> None:
    """A state with what a model says of it: the characters of ``chars`` that may come next, and whether the text may end."""
    ways = {char for char in chars if goes_on(char)}
    assert {char for char in chars if leaf.step(state, char) is not None} == ways
    assert leaf.accepting(state) == whole
    listed = leaf.first(state)
    assert leaf.open(state) == (listed is None or bool(listed))
    assert listed is None or listed & set(chars) == ways
    assert ways or not listed
    for low, high in spans:
        codes = [code for code in range(ord(low), ord(high) + 1) if not 0xD800 <= code <= 0xDFFF]
        assert leaf.any_in(state, ord(low), ord(high)) == any(goes_on(chr(code)) for code in codes), (low, high)


TEXTS = ["", "^[ab]*$", "^(aaa)*b$", "^(ab|ba)+$", "^a{2,4}$|^b", "^[^a]*$", "^(a|b)*a$", "^a?b?$", "^[ab]{1,2}$"]
FAR = 7  # characters of the texts that are written out: more than a text with NEAR needs to end
NEAR = 4


@pytest.mark.parametrize("pattern", TEXTS)
@given(SEEDS)
@settings(max_examples=runs(150), deadline=None, derandomize=True)
def test_a_text_goes_on_as_long_as_one_of_those_that_are_not_taken_begins_so(pattern: str, seed: int) -> None:
    """Of characters, z stands for all that a pattern does not name and no name holds."""
    r = random.Random(seed)
    low, high = r.randint(0, 3), r.choice([None, r.randint(0, 4), r.randint(0, 4)])
    every = written_out(FAR if high is None else high)
    whole = {text for text in every if len(text) >= low and re.search(pattern, text)}
    base = PlainText(compile_pattern(pattern) if pattern else None, low, high)
    names = [text for text in written_out(NEAR) if "z" not in text]
    taken = set(r.choice([names, r.sample(names, 8), [text for text in names if text in whole]]))
    leaf = FreshName(base, frozenset(taken)) if r.random() < 0.7 else base
    whole -= taken if leaf is not base else set()
    begun = {text[:n] for text in whole for n in range(len(text) + 1)}
    assert leaf.possible == bool(whole)
    assert all(leaf.accepts(text) == (text in whole) for text in (*r.sample(every, min(len(every), 20)), *names))
    text, state = "", leaf.start()
    quoted = Quoted(leaf)
    string = quoted.step(quoted.start(), '"')
    while whole and len(text) < NEAR:
        spans = [("a", "a"), *(tuple(sorted(r.choices("^_`abcd", k=2))) for _ in range(4))]
        agree(leaf, state, lambda c, t=text: t + (c if c in "ab" else "z") in begun, text in whole, "^_`abcd", spans)
        if leaf is base and high is not None and "z" not in "".join(whole):
            count = sum(other.startswith(text) for other in whole)
            assert [base.more_than(state, n) for n in range(count + 2)] == [n < count for n in range(count + 2)]
        ways = [char for char in "abz" if text + char in begun]
        assert [char for char in "abz" if quoted.step(string, char) is not None] == ways
        assert (quoted.step(string, '"') is not None) == (text in whole)
        if not ways:
            break
        text += r.choice(ways)
        state, string = leaf.step(state, text[-1]), quoted.step(string, text[-1])


@cache
def written_out(most: int) -> list[str]:
    return ["".join(chars) for n in range(most + 1) for chars in product("abz", repeat=n)]


@pytest.mark.parametrize(("low", "high"), [(300, 300), (0, 300), (300, None)])
@pytest.mark.parametrize("pattern", ["", "^(xx)*$"])
def test_a_long_text_is_counted_to_its_end(pattern: str, low: int, high: int | None) -> None:
    leaf = PlainText(compile_pattern(pattern) if pattern else None, low, high)
    state = leaf.start()
    for count in range(304):
        more = high is None or count < high
        assert leaf.accepting(state) == (count >= low and (not pattern or count % 2 == 0))
        assert (leaf.open(state), leaf.any_in(state, ord("x"), ord("x"))) == (more, more)
        following = leaf.step(state, "x")
        assert (following is not None) == more
        state = following if more else state
        if not more:
            break


SPELLED = '"\\/bfnrtuU xg\n' + "0123456789abcdefABCDEF" + EDGES
CLOSED = re.compile(r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*')
SHORT = '"\\\b\f\n\r\t'


Spans = tuple[tuple[int, int], ...]


def minus(spans: Spans, low: int, high: int) -> Spans:
    parts = [part for a, b in spans for part in ((a, min(b, low - 1)), (max(a, high + 1), b))]
    return tuple((a, b) for a, b in parts if a <= b)


def meet(spans: Spans, low: int, high: int) -> bool:
    return low <= high and any(a <= high and low <= b for a, b in spans)


def first_half(code: int) -> int:
    """Of a pair of surrogates, as Python encodes it."""
    return int.from_bytes(chr(code).encode("utf-16-be")[:2], "big")


class Strings:
    """A plain model of strings in JSON that say up to ``most`` characters of some spans; without any spans, of all."""

    def __init__(self, spans: Spans, most: int, full: bool) -> None:
        self.most, self.full = most, full
        self.listed = bool(spans)
        self.spans = minus(spans or ((0, 0x10FFFF),), 0xD800, 0xDFFF)
        units = minus(self.spans, 0x10000, 0x10FFFF)
        self.units = minus(units, 0x20, 0x7E) if self.listed else units  # what is listed is written as it is
        astral = minus(self.spans, 0, 0xFFFF) if full else ()
        self.leads = tuple((first_half(a), first_half(b)) for a, b in astral)

    def goes_on(self, written: str) -> bool:
        """Whether a string may begin so."""
        closed = CLOSED.match(written)
        if closed is None:
            return not written
        rest = written[closed.end() :]
        text, lead = json.loads(closed[0] + '"'), 0
        if text and 0xD800 <= ord(text[-1]) < 0xDC00:
            text, lead = text[:-1], ord(text[-1])
        if not all(meet(self.spans, ord(char), ord(char)) for char in text) or not self.spelled(closed[0]):
            return False
        if len(text) + (lead > 0 or rest not in ("", '"')) > self.most:
            return False
        if rest in ("", '"'):
            return not rest or not lead
        if rest == "\\":
            return lead > 0 or any(meet(self.spans, ord(char), ord(char)) for char in SHORT) or self.digits("", 0)
        found = re.fullmatch(r"\\u([0-9a-fA-F]{0,3})", rest)
        return found is not None and self.digits(found[1], lead)

    def spelled(self, closed: str) -> bool:
        """Whether all escapes that are whole are allowed."""
        escapes = re.findall(r"\\(u....|.)", closed)
        if "/" in escapes and (self.listed or not self.full):
            return False
        units = [int(escape[1:], 16) for escape in escapes if len(escape) > 1]
        return all(self.digits(f"{unit:04x}", 0) or (0xDC00 <= unit < 0xE000 and self.full) for unit in units)

    def digits(self, begun: str, lead: int) -> bool:
        """Whether a unit that begins with these digits leads on, after the first half of a pair if there is one."""
        spread = 16 ** (4 - len(begun))
        first = int(begun or "0", 16) * spread
        last = first + spread - 1
        if lead:
            before = 0x10000 + (lead - 0xD800) * 0x400 - 0xDC00
            return meet(self.spans, before + max(first, 0xDC00), before + min(last, 0xDFFF))
        return meet(self.units, first, last) or meet(self.leads, first, last)


def some_spans(r: random.Random) -> Spans:
    if r.random() < 0.2:
        return ()
    marks = sorted(ord(char) for char in r.choices(EDGES + '"\\\n/', k=2 * r.randint(1, 3)))
    if r.random() < 0.4:
        marks[1::2] = marks[::2]  # single characters
    return tuple(zip(marks[::2], marks[1::2], strict=True))


def spellings(code: int) -> list[str]:
    char = json.dumps(chr(code))[1:-1]
    return [chr(code), char, char.upper().replace("\\U", "\\u"), *([f"\\u{code:04x}"] if code <= 0xFFFF else [])]


def follow(model: Strings, text: str, r: random.Random) -> None:
    """Read a string of the model, and compare at each place."""
    spans = "".join(f"{escaped(chr(low))}-{escaped(chr(high))}" for low, high in model.spans)
    leaf = Quoted(PlainText(compile_pattern(f"^[{spans}]*$") if model.listed else None, 0, model.most), model.full)
    state, begun = leaf.start(), ""
    for char in text:
        around = [("\xfe", "\u0101"), ("\ud7fe", "\ue001"), ("\ufffd", "\U00010001"), *((c, c) for c in r.sample(EDGES[6:], 4))]
        agree(leaf, state, lambda c, t=begun: model.goes_on(t + c), False, SPELLED, around)
        state, begun = leaf.step(state, char), begun + char
        assert state is not None, begun
    agree(leaf, state, lambda _: False, True, SPELLED, [])
    assert not leaf.any_in(state, 0x80, 0xFFFF)


@pytest.mark.slow
@given(SEEDS)
@settings(max_examples=runs(400), deadline=None, derandomize=True)
def test_a_string_goes_on_as_long_as_json_that_says_what_is_allowed_begins_so(seed: int) -> None:
    r = random.Random(seed)
    model = Strings(some_spans(r), r.randint(0, 2), r.random() < 0.7)
    text = '"'
    for _ in range(r.randint(0, model.most)):
        code = r.choice([code for low, high in model.spans for code in (low, high, r.randint(low, high))])
        text += r.choice([way for way in spellings(code) if model.goes_on(text + way + '"')] or [""])
    follow(model, text + '"', r)


@pytest.mark.slow
@pytest.mark.parametrize("full", [True, False])
def test_a_string_of_one_character_alone_is_spelled_in_all_its_ways_and_no_other(full: bool) -> None:
    for char in EDGES:
        model = Strings(((ord(char), ord(char)),), 1, full)
        for way in spellings(ord(char)):
            if model.goes_on(f'"{way}"'):
                follow(model, f'"{way}"', random.Random(1))


def escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"


@given(SEEDS)
@settings(max_examples=runs(400), deadline=None, derandomize=True)
def test_the_first_bytes_of_a_character_pass_where_one_that_begins_so_is_allowed(seed: int) -> None:
    r = random.Random(seed)
    allowed = r.sample(EDGES.replace("\x00", "").replace("\x1f", ""), r.randint(1, 4))
    schema = {"enum": allowed} if r.random() < 0.5 else {"type": "string", "pattern": f"^[{''.join(map(escaped, allowed))}]$"}
    at = Constraint.from_spec({"dialect": HERMES.to_dict(), "schema": schema})
    at.commit(b'"')
    encoded = [char.encode() for char in allowed]
    for char in EDGES:
        for count in range(1, len(char.encode()) + 1):
            piece = char.encode()[:count]
            assert at.accepts(piece) == any(whole.startswith(piece) for whole in encoded), piece
            assert not at.accepts(piece, special=True)
    assert not any(at.accepts(bytes([byte])) for byte in (*range(0x80, 0xC2), *range(0xF5, 0x100)))
    whole = r.choice(encoded)
    for byte in whole[:-1]:
        at.commit(bytes([byte]))
        assert (at.forced(), at.next_chars(), at.may_end()) == ([], None, False)
        with pytest.raises(ValueError, match="may not come next"):
            at.after('"')
    if len(whole) > 1:
        last = {other[-1] for other in encoded if other[:-1] == whole[:-1]}
        assert {byte for byte in range(256) if at.accepts(bytes([byte]))} == last
