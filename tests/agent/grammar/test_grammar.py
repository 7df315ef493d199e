"""The grammar engine: automata, patterns, numbers, strings, and how they are put together."""

from __future__ import annotations

import importlib
import json
import random
import re
import time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import SchemaError
from agent.grammar.automata.dfa import TooLargeError, avoiding, both, negate, not_starting, words
from agent.grammar.automata.regex import NotRegularError, compile_pattern
from agent.grammar.leaves import Literal, OneOf, PlainText, Quoted
from agent.grammar.matcher import MAX_DEPTH, Grammar
from agent.grammar.nodes import Alt, Nest, Node, Ref, Repeat, Seq, settle
from agent.grammar.schema.numbers import Interval, Number
from tests.fixtures.generated import runs


def fits(node: Node, text: str) -> bool:
    state = Grammar(settle(node)).start().advance(text)
    return state is not None and state.complete


PATTERNS = [
    "a", "^a", "a$", "^a*b?$", "^(ab|a)*$", "x|^y|z$", "^[^a]$", r"^\w+\s\d{2,3}$", "^a{0,2}b{3}$", "(?:a+b)?c", "^.b.$", "",
    "^$", "a^b",
    "^(a|b){2,}?c", r"[\w-]+@[a-c.]+", "^(?P<x>a)b$", "(^|-)a($|-)", "^[\\]a-]+$", r"\Aa\Z",
]  # fmt: skip


@given(st.sampled_from(PATTERNS), st.text("abcxyz019 -@.]\n_é", max_size=8))
@settings(max_examples=runs(1500), deadline=None, derandomize=True)
def test_an_automaton_finds_what_pythons_search_finds(pattern: str, text: str) -> None:
    strict = re.sub(r"(?<!\\)\$", r"\\Z", pattern)
    assert compile_pattern(pattern).accepts(text) == (re.search(strict, text, re.ASCII) is not None)


def test_the_parser_of_this_python_names_what_the_grammar_reads() -> None:
    """``re._parser`` is private. What a new Python changes in it shows here, before a pattern is read for another one."""
    parser = importlib.import_module("re._parser")
    tree = parser.parse(r"^a[^b-d\w]*?(?P<n>x|yz){2}.[e]\Z")
    begin, letter, lazy, twice, dot, e, end = (tuple(item) for item in tree)
    assert (str(begin), str(end)) == ("(AT, AT_BEGINNING)", "(AT, AT_END_STRING)")
    assert str((letter, dot, e)) == "((LITERAL, 97), (ANY, None), (LITERAL, 101))"
    kind, (low, high, items) = lazy
    assert f"{kind} {low} {high} {list(items)}" == (
        "MIN_REPEAT 0 MAXREPEAT [(IN, [(NEGATE, None), (RANGE, (98, 100)), (CATEGORY, CATEGORY_WORD)])]"
    )
    kind, (low, high, items) = twice
    assert (str(kind), low, high) == ("MAX_REPEAT", 2, 2)
    ((kind, (group, add, remove, items)),) = items
    assert (str(kind), group, add, remove) == ("SUBPATTERN", 1, 0, 0)
    ((kind, (none, branches)),) = items
    assert (str(kind), none) == ("BRANCH", None)
    assert [str(branch) for branch in branches] == ["[(LITERAL, 120)]", "[(LITERAL, 121), (LITERAL, 122)]"]
    assert tree.state.flags & ~re.UNICODE == 0
    assert parser.parse("(?m)a").state.flags & re.MULTILINE


@pytest.mark.parametrize("pattern", [
    "(?=a)b", r"(a)\1", r"\bword", "(?i)a", "(?<!x)y", "[", "(?P<n", r"\p{L}",
    "a*+", "(?>a)", "(?i:a)", "(a)?(?(1)b|c)", "(?m)^a",
])  # fmt: skip
def test_what_is_not_regular_is_said_to_be_so(pattern: str) -> None:
    with pytest.raises(NotRegularError):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["a{1000000}", "((a{100}){100}){100}", "(){1000000}", "(" * 1500 + ")" * 1500, "a" * 5000])
def test_a_pattern_that_is_a_bomb_is_refused_at_once(pattern: str) -> None:
    begin = time.process_time()
    with pytest.raises(SchemaError) as error:
        compile_pattern(pattern)
    assert "\n" not in str(error.value)
    assert time.process_time() - begin < 2


def test_a_pattern_whose_automaton_explodes_stops_in_bounded_time() -> None:
    begin = time.process_time()
    with pytest.raises(TooLargeError):
        compile_pattern("(a|b)*a(a|b){40}$")
    assert time.process_time() - begin < 10


def test_automata_combine() -> None:
    a, b = words(["cat", "cow", "dog"]), compile_pattern("o")
    assert [w for w in ("cat", "cow", "dog", "o") if both(a, b).accepts(w)] == ["cow", "dog"]
    assert [w for w in ("cat", "cow", "ca", "") if negate(a).accepts(w)] == ["ca", ""]
    assert both(a, negate(a)).start < 0


@given(
    st.lists(st.text("ab<", min_size=1, max_size=4), min_size=1, max_size=3, unique=True).map(tuple), st.text("ab<", max_size=9)
)
@settings(max_examples=runs(500), deadline=None, derandomize=True)
def test_texts_that_avoid_marks(marks: tuple[str, ...], text: str) -> None:
    assert avoiding(marks).accepts(text) == (not any(mark in text for mark in marks))
    ends = [(text + marks[0]).find(mark) + len(mark) for mark in marks if mark in text + marks[0]]
    assert avoiding(marks, marks[0]).accepts(text) == (min(ends) == len(text + marks[0]))
    begins = any(text.lstrip("a").startswith(mark) for mark in marks)
    if not any(mark.startswith("a") for mark in marks):
        assert not_starting(marks, "a").accepts(text) == (not begins)


INTEGERS = st.one_of(st.integers(-30, 30), st.integers(-(10**25), 10**25))


@given(INTEGERS, INTEGERS, INTEGERS, st.sampled_from([None, 1, 3, 7, 1000]), st.booleans(), st.booleans())
@settings(max_examples=runs(800), deadline=None, derandomize=True)
def test_integers_within_bounds(low: int, high: int, number: int, step: int | None, open_low: bool, open_high: bool) -> None:
    bounds = Interval(Fraction(low), Fraction(high), open_low, open_high, None if step is None else Fraction(step))
    allowed = (low < number or (number == low and not open_low)) and (number < high or (number == high and not open_high))
    allowed = allowed and (step is None or number % step == 0)
    assert fits(Number(bounds, integer=True), str(number)) == allowed


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.booleans(), st.sampled_from([0.0, 1e-9, 1e-300, 5e-324, 1.0, 2.5]))
@settings(max_examples=runs(400), deadline=None, derandomize=True)
def test_a_number_beside_its_bound_is_what_its_float_makes_of_it(low: float, high: float, is_open: bool, gap: float) -> None:
    low, high = sorted((low, high))
    leaf = Number(Interval(Fraction(repr(low)), Fraction(repr(high)), is_open, is_open), integer=False)
    for number in (low, low + gap, high, high - gap, (low + high) / 2):
        if number == 0:
            continue
        text = format(Decimal(repr(number)), "f")
        text = text if "." in text else text + ".0"
        allowed = low < number < high if is_open else low <= number <= high
        assert fits(leaf, text) == allowed, text


def test_a_decimal_that_rounds_to_an_excluded_bound_is_refused() -> None:
    above_zero = Number(Interval(low=Fraction(0), open_low=True), integer=False)
    assert not fits(above_zero, "0." + "0" * 330 + "1")
    assert fits(above_zero, "0." + "0" * 320 + "1")
    below = Number(Interval(high=Fraction("0.1"), open_high=True), integer=False)
    assert not fits(below, "0.0999999999999999999999999999")
    assert fits(below, "0.09999999999999")


@pytest.mark.parametrize("text", ["", "-", "-0", "01", "1.", ".5", "1e5", "+1", "-00.5", "1" * 301])
def test_what_is_no_number(text: str) -> None:
    assert not fits(Number(Interval(), integer=False), text)


@given(st.text(max_size=6), st.integers(0, 4), st.integers(0, 6))
@settings(max_examples=runs(500), deadline=None, derandomize=True)
def test_strings_are_counted_in_code_points_whatever_their_escapes(text: str, low: int, room: int) -> None:
    leaf = Quoted(PlainText(None, low, low + room))
    allowed = low <= len(text) <= low + room
    assert fits(leaf, json.dumps(text, ensure_ascii=False)) == allowed
    assert fits(leaf, json.dumps(text)) == allowed


@pytest.mark.parametrize(
    "text", ['"\\ud83d"', '"\\ude00"', '"\\ud83d\\u0041"', '"\\x41"', '"\n"', '"\\u00g0"', '"', '"a"b', '"\\"', '"\\ud83d\\n"']
)
def test_what_is_no_string(text: str) -> None:
    assert not fits(Quoted(PlainText()), text)


def test_an_escape_may_only_begin_what_the_pattern_takes() -> None:
    start = Grammar(settle(Quoted(PlainText(compile_pattern("^[\\n\u00e9\U0001f600]+$"))))).start()
    begun = start.advance('"\\')
    assert begun is not None
    assert begun.next_chars() == {"n", "u"}
    assert begun.advance("ud8") is not None
    assert begun.advance("u00e9") is not None
    assert begun.advance("u00ea") is None
    assert begun.advance("u01") is None
    date = Grammar(settle(Quoted(PlainText(compile_pattern(r"^\d-\d$"))))).start().advance('"1')
    assert date is not None
    assert date.forced() == [("-", False)]


def test_a_length_and_a_pattern_together_never_lead_astray() -> None:
    leaf = PlainText(compile_pattern("^(aaa)*b$"), 5, 8)
    state = Grammar(settle(leaf)).start()
    assert state.forced() == [("aaaaaab", False)]
    assert not PlainText(compile_pattern("^(aaa)*b$"), 5, 6).possible


def test_sequences_alternatives_and_repeats() -> None:
    comma = Literal(",")
    node = Seq(Literal("["), Repeat(OneOf(["on", "off", "one"]), 1, 3, comma), Literal("]"))
    assert fits(node, "[on]")
    assert fits(node, "[on,one,off]")
    assert not fits(node, "[]")
    assert not fits(node, "[on,on,on,on]")
    state = Grammar(settle(node)).start()
    assert state.forced() == [("[o", False)]
    with pytest.raises(ValueError):
        settle(Repeat(PlainText(), 0, None))


def test_what_is_defined_by_itself_ends_at_the_greatest_depth() -> None:
    ref = Ref()
    ref.target = Nest(Seq(Literal("("), Repeat(ref, 0, None), Literal(")")))
    state = Grammar(settle(ref)).start()
    deepest = state.advance("(" * MAX_DEPTH)
    assert deepest is not None
    assert deepest.next_chars() == {")"}
    assert state.advance("(()())") is not None


def test_a_definition_that_says_nothing_is_impossible() -> None:
    ref, other = Ref(), Ref()
    ref.target, other.target = Alt(other, ref), Alt(ref)
    state = Grammar(settle(ref)).start()
    assert not state.threads
    assert not state.complete


def test_alternatives_that_are_alike_do_not_multiply() -> None:
    ref = Ref()
    options = [Nest(Seq(Literal("["), Repeat(ref, 0, 3, Literal(",")), Literal("]"))) for _ in range(6)]
    ref.target = Alt(*options)
    state = Grammar(settle(ref)).start()
    begin = time.process_time()
    deep = state.advance("[[" * 20)
    assert deep is not None
    assert len(deep.threads) <= 400
    assert deep.advance("]" * 40) is not None
    assert time.process_time() - begin < 20


def test_states_are_found_again() -> None:
    state = Grammar(settle(Quoted(PlainText()))).start().advance('"a')
    assert state is not None
    r = random.Random(1)
    for _ in range(100):
        assert state.advance("".join(r.choices("abcdef", k=4))) is state
