"""The grammar engine: automata, patterns, numbers, strings, and how they are put together."""

from __future__ import annotations

import gc
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
from agent.grammar import matcher
from agent.grammar.automata.dfa import TooLargeError, avoiding, both, negate, not_starting, words
from agent.grammar.automata.regex import NotRegularError, compile_pattern
from agent.grammar.leaves import Literal, OneOf, PlainText, Quoted
from agent.grammar.matcher import MAX_DEPTH, Grammar, State
from agent.grammar.nodes import Alt, Nest, Node, Ref, Repeat, Seq, settle
from agent.grammar.schema.interval import Interval, exact
from agent.grammar.schema.numbers import Number
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


def takes(leaf: Number, text: str) -> bool:
    state = leaf.start()
    for char in text:
        state = None if state is None else leaf.step(state, char)
    return state is not None and leaf.accepting(state)


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.booleans(), st.sampled_from([0.0, 1e-9, 1e-300, 1.0, 2.5]))
@settings(max_examples=runs(200), deadline=None, derandomize=True)
def test_a_number_beside_its_bound_is_what_its_float_makes_of_it(low: float, high: float, is_open: bool, gap: float) -> None:
    low, high = sorted((low, high))
    leaf = Number(Interval(Fraction(repr(low)), Fraction(repr(high)), is_open, is_open), integer=False)
    for number in (low, low + gap, high, high - gap, (low + high) / 2):
        if abs(number) < 1e-300:
            continue
        allowed = low < number < high if is_open else low <= number <= high
        assert takes(leaf, repr(number)) == allowed, number
        mantissa = format(Decimal(repr(number)), "e").replace("+", "")
        assert takes(leaf, mantissa if "e" in mantissa else mantissa + "E0") == allowed, mantissa
        plain = format(Decimal(repr(number)), "f")
        if abs(number) > 1e-20:
            assert takes(leaf, plain if "." in plain else plain + ".0") == allowed, plain


def test_a_decimal_that_rounds_to_an_excluded_bound_is_refused() -> None:
    above_zero = Number(Interval(low=Fraction(0), open_low=True), integer=False)
    assert not fits(above_zero, "1e-330")
    assert not fits(above_zero, "0.0e5")
    assert fits(above_zero, "1e-323")
    below = Number(Interval(high=Fraction("0.1"), open_high=True), integer=False)
    assert not fits(below, "0.099999999999999999")
    assert not fits(below, "9.9999999999999999e-2")
    assert fits(below, "0.09999999999999")
    assert fits(below, "9.999999999999999e-2")


@pytest.mark.parametrize("text", [
    "1e-9", "1.256e-06", "1E5", "2e10", "6.02214076E+23", "-1.5e-300", "0e0", "0.000000e+00", "1.7976931348623157e307",
    "0.000000001", "-0.5", "1.0", "18446744073709551615", "0.30000000000000004", "12345678901234567890.5",
])  # fmt: skip
def test_numbers_as_programs_write_them(text: str) -> None:
    assert fits(Number(Interval(), integer=False), text)


@pytest.mark.parametrize("text", [
    "", "-", "-0", "-0.0", "-0e5", "01", "1.", ".5", "+1", "-00.5", "1e", "1e+", "1e-+5", "1.e5", "e5", "1e5.0", "1e1e1",
    "1e1000", "1e308", "1e-324", "1e0001", "1" * 21, "0." + "0" * 21, "0.123456789012345678",
])  # fmt: skip
def test_what_is_no_number(text: str) -> None:
    assert not fits(Number(Interval(), integer=False), text)


@pytest.mark.parametrize("text", ["1.0", "1e3", "-0", "1" * 21])
def test_what_is_no_integer(text: str) -> None:
    assert not fits(Number(Interval(), integer=True), text)


@pytest.mark.parametrize(
    ("bounds", "integer", "written"),
    [
        (Interval(), True, "3" * 20),
        (Interval(low=Fraction(7)), True, "3" * 20),
        (Interval(high=Fraction(10**30)), True, "3" * 30),
        (Interval(low=Fraction(10**30)), True, "3" * 32),
        (Interval(step=Fraction(10**25 + 10)), True, "3" * 27),
        (Interval(), False, "3" * 20 + ".3e33"),
    ],
)
def test_a_number_is_as_long_as_its_bounds_ask_for_and_no_longer(bounds: Interval, integer: bool, written: str) -> None:
    """What a model writes that never ends one by itself: digits, then a point, digits, an exponent, digits."""
    state, text = Grammar(settle(Number(bounds, integer))).start(), ""
    while chars := state.next_chars():
        char = next((c for c in "3.e" if c in chars), min(chars))
        state, text = state.advance(char) or state, text + char
    assert len(text) == len(written), text
    assert state.complete


BOUNDS = st.one_of(st.none(), st.integers(-50, 50).map(Fraction), st.sampled_from([
    "0.1", "-0.1", "1e-30", "-1e-30", "1.5e100", "1e25", "-3.25", "0.3", "100000000000000000000000001", "1e-310",
]).map(Fraction))  # fmt: skip


@given(st.integers(0, 2**60), BOUNDS, BOUNDS, st.booleans(), st.booleans(), st.sampled_from([None, None, "0.25", "3", "0.1"]))
@settings(max_examples=runs(300), deadline=None, derandomize=True)
def test_a_number_never_leads_astray_and_ends(
    seed: int, low: Fraction | None, high: Fraction | None, open_low: bool, open_high: bool, step: str | None
) -> None:
    bounds = Interval(low, high, open_low, open_high, None if step is None else Fraction(step))
    leaf = Number(bounds, integer=seed % 3 == 0)
    r = random.Random(seed)
    state, text = leaf.start(), ""
    lazy = r.random() < 0.5
    while leaf.open(state) and not (lazy and leaf.accepting(state)):
        char = r.choice(sorted(leaf.first(state) or ()))
        state, text = leaf.step(state, char), text + char
    if not text:
        assert low is not None or high is not None
        return
    assert leaf.accepting(state), text
    assert len(text) <= 120
    number = exact(json.loads(text))
    assert low is None or (number > low if open_low else number >= low)
    assert high is None or (number < high if open_high else number <= high)
    assert step is None or Fraction(text) % Fraction(step) == 0


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


@pytest.mark.slow
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


def test_what_is_remembered_of_a_grammar_is_bounded_and_forgetting_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    node = settle(Repeat(Seq(PlainText(high=90), Literal(";")), 0, 5))  # each count of characters is a state of its own
    dice = random.Random(1)
    texts = [";".join("x" * dice.randrange(99) for _ in range(5)) for _ in range(40)]
    read, starts = [], []
    for most in (1 << 20, 8):
        monkeypatch.setattr(matcher, "_MAX_STEPS", most)
        grammar = Grammar(node)
        starts.append(grammar.start())  # what is kept for the next answer
        read.append([_read(grammar, text) for text in texts])
    assert read[0] == read[1]
    gc.collect()
    alive = [o for o in gc.get_objects() if type(o) is State and o._grammar is grammar]
    assert len(alive) <= 2 * 8


def _read(grammar: Grammar, text: str) -> int:
    """How many characters fit."""
    state = grammar.start()
    for count, char in enumerate(text):
        following = state.advance(char)
        if following is None:
            return count
        state = following
    return len(text)
