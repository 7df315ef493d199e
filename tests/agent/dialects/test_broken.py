"""What cannot be read is said to be broken, in one line, and never more than that happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dialects.base import CallBroken, CallDone, CallPart, CallStart, Dialect, Piece
from agent.dialects.families import DIALECTS, THINK
from agent.dialects.parser import StreamParser
from agent.dialects.values import BadValueError, read_json, read_keywords, read_loose
from tests.agent.dialects.test_dialects import (
    ALL,
    FAST,
    PROPERTIES,
    TOOLS,
    broken_in,
    calls_in,
    example,
    marks_of,
    read,
    text_in,
    thinking_of,
)  # fmt: skip

HERMES = DIALECTS["hermes"]


def is_in_order(pieces: Sequence[Piece]) -> bool:
    """Calls are counted from 0; each starts at most once, before its parts, and ends exactly once."""
    ended: list[int] = []
    current = ""
    for piece in pieces:
        if isinstance(piece, (CallDone, CallBroken)):
            ended.append(piece.index)
            if isinstance(piece, CallDone) and current != piece.call.name:
                return False
            current = ""
        elif isinstance(piece, CallStart):
            if current or piece.index != len(ended):
                return False
            current = piece.name
        elif isinstance(piece, CallPart) and (not current or piece.index != len(ended)):
            return False
        elif not isinstance(piece, CallPart) and current:
            return False  # words or a thought within a call
    return not current and ended == list(range(len(ended)))


DEEP = "[" * 50_000 + "]" * 50_000
BROKEN = [
    ("hermes", '<tool_call>{"name": "f", "arguments": {"text": "a"', "the answer ended inside the call"),
    ("hermes", "<tool_call>", "the answer ended inside the call"),
    ("hermes", "<tool_call>no idea</tool_call>", "no call follows"),
    ("hermes", "<tool_call></tool_call>", "no call follows"),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"text": oops}}</tool_call>', "bad JSON"),
    ("hermes", '<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "not an object"),
    ("hermes", '<tool_call>{"name": "f", "arguments": "x y"}</tool_call>', "bad JSON"),
    ("hermes", '<tool_call>{"name": "f", "bed": 1}</tool_call>', "it has no 'arguments'"),
    ("hermes", '<tool_call>{"arguments": {}}</tool_call>', "it names no tool"),
    ("hermes", '<tool_call>{"name": "<b> x", "arguments": {}}</tool_call>', "it names no tool"),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"text": "a", "text": "b"}}</tool_call>', "'text' comes twice"),
    ("hermes", '<tool_call>{"name": "f", "name": "g", "arguments": {}}</tool_call>', "'name' comes twice"),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"share": NaN}}</tool_call>', "NaN is not a JSON value"),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"share": -Infinity}}</tool_call>', "-Infinity is not a JSON value"),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"share": 1e999}}</tool_call>', "a number is too large"),
    ("hermes", f'<tool_call>{{"name": "f", "arguments": {{"count": {"9" * 5000}}}}}</tool_call>', "too many digits"),
    ("hermes", r'<tool_call>{"name": "f", "arguments": {"text": "\ud800"}}</tool_call>', "surrogate"),
    ("hermes", f'<tool_call>{{"name": "f", "arguments": {{"more": {"[" * 70}{"]" * 70}}}}}</tool_call>', "deeper than 64"),
    ("hermes", f'<tool_call>{{"name": "f", "arguments": {{"more": {DEEP}}}}}</tool_call>', "deeper than 64"),
    ("hermes", f'<tool_call>{{"name": "f", "arguments": {{"text": "{"x" * 1_000_001}"}}}}</tool_call>', "more than 1,000,000"),
    ("qwen-coder", "<tool_call>\n<function=f>\n<parameter=text>\na", "the answer ended inside the call"),
    ("qwen-coder", "<function=f>\n<parameter=text>\na\n</parameter>\n", "the answer ended inside the call"),
    ("qwen-coder", "<tool_call>what</tool_call>", "it names no tool"),
    ("qwen-coder", "<function=f>what</function>", "no '<parameter=' follows"),
    ("qwen-coder", "<function=f><parameter=text>a</parameter><parameter=text>b</parameter></function>", "'text' comes twice"),
    ("qwen-coder", f"<function=f><parameter=text>{'x' * 1_000_001}</parameter></function>", "more than 1,000,000"),
    ("minicpm5", '<function name="f"><param name="text"><![CDATA[a</param></function>', "the answer ended inside the call"),
    ("lfm2", "<|tool_call_start|>[f(text=", "the answer ended inside the call"),
    ("lfm2", "<|tool_call_start|>[f(text=open('x'))]<|tool_call_end|>", "a value is missing"),
    ("lfm2", "<|tool_call_start|>[f(count=1+1)]<|tool_call_end|>", "a comma is missing"),
    ("lfm2", "<|tool_call_start|>[f(count=1, count=2)]<|tool_call_end|>", "'count' comes twice"),
    ("lfm2", "<|tool_call_start|>[g(1)]<|tool_call_end|>", "an argument has no name"),
    ("lfm2", "<|tool_call_start|>[f]<|tool_call_end|>", "no parenthesis follows"),
    ("lfm2", "<|tool_call_start|>[?]<|tool_call_end|>", "no call follows"),
    ("lfm2", "<|tool_call_start|>?<|tool_call_end|>", "no call follows"),
    ("lfm2", f"<|tool_call_start|>[f(items={'[' * 70}{']' * 70})]<|tool_call_end|>", "deeper than 64"),
    ("lfm2", f"<|tool_call_start|>[f(count={'-' * 100_000}1)]<|tool_call_end|>", "a value is missing"),
    ("lfm2", f"<|tool_call_start|>[f(count={'1+' * 100_000}1)]<|tool_call_end|>", "a comma is missing"),
    ("gemma4", '<|tool_call>call:f{text:<|"|>a', "the answer ended inside the call"),
    ("gemma4", "<|tool_call>call:f{share:NaN}<tool_call|>", "NaN is not a JSON value"),
    ("gemma4", "<|tool_call>call:f{a:1,a:2}<tool_call|>", "'a' comes twice"),
    ("gemma4", "<|tool_call>call me<tool_call|>", "it names no tool"),
    ("gemma4", f"<|tool_call>call:f{{a:{'[' * 70}{']' * 70}}}<tool_call|>", "deeper than 64"),
    ("ministral", "[TOOL_CALLS]f[ARGS]", "the answer ended inside the call"),
    ("ministral", '[TOOL_CALLS]two words{"a": 1}', "it names no tool"),
    ("functionary-3.2", 'f\n{"text": ', "the answer ended inside the call"),
    ("functionary-3.2", "f\nwords", "no JSON object follows"),
    ("deepseek", "<｜tool▁calls▁begin｜>words<｜tool▁calls▁end｜>", "no arguments follow"),
    ("llama3", '{"name": "f", "parameters": {"text"', "the answer ended inside the call"),
    ("llama3", '{"name": "f", "parameters": {"text": 1, "text": 2}}', "'text' comes twice"),
]


@pytest.mark.parametrize(("name", "answer", "why"), BROKEN, ids=lambda value: value[:50])
def test_why_is_said_in_one_line(name: str, answer: str, why: str) -> None:
    started = time.process_time()
    pieces = read(DIALECTS[name], answer)
    assert time.process_time() - started < 10
    (broken,) = broken_in(pieces)
    assert why in broken.why
    assert "\n" not in broken.why
    assert len(broken.why) < 200
    assert broken.raw in answer
    assert len(broken.raw) < 1_010_000
    assert not calls_in(pieces)
    assert is_in_order(pieces)
    if len(answer) < 300:
        assert answer.startswith(broken.raw[:20])
        assert read(DIALECTS[name], list(answer)) == pieces


def test_nesting_of_64_is_read_and_of_65_is_not() -> None:
    for levels in (64, 65):
        nested = "[" * (levels - 1) + "]" * (levels - 1)
        for name, answer in {
            "hermes": f'<tool_call>{{"name": "f", "arguments": {{"items": {nested}}}}}</tool_call>',
            "ministral": f'[TOOL_CALLS]f[ARGS]{{"items": {nested}}}',
            "lfm2": f"<|tool_call_start|>[f(items={nested})]<|tool_call_end|>",
            "gemma4": f"<|tool_call>call:f{{items:{nested}}}<tool_call|>",
        }.items():
            pieces = read(DIALECTS[name], answer)
            assert bool(calls_in(pieces)) is (levels == 64)
            assert bool(broken_in(pieces)) is (levels == 65)


def test_a_broken_call_does_not_take_the_next_one_along() -> None:
    good = '{"name": "f", "arguments": {}}'
    for answer in (
        f"<tool_call>what</tool_call>\n<tool_call>{good}</tool_call>",
        f'<tool_call>{{"name": "f", "arguments": [2]}}</tool_call>{good}<tool_call>{good}</tool_call>',
        f"<tool_call>what <tool_call>{good}",
    ):
        pieces = read(HERMES, answer)
        assert [piece.index for piece in broken_in(pieces)] == [0]
        assert len(calls_in(pieces)) == 1
        assert is_in_order(pieces)


@ALL
def test_cut_off_anywhere_it_ends_well(dialect: Dialect) -> None:
    text, message = example(dialect)
    for end in range(len(text) + 1):
        pieces = read(dialect, text[:end], thinking=thinking_of(dialect))
        assert is_in_order(pieces)
        assert len(broken_in(pieces)) <= 1
        # What is whole is what was meant: half a call never passes for one.
        assert tuple(calls_in(pieces)) == message.calls[: len(calls_in(pieces))]
        assert message.text.startswith(text_in(pieces).rstrip()) or broken_in(pieces) == [] or dialect.only_at_start


@ALL
@FAST
@given(data=st.data())
def test_no_text_makes_it_raise(dialect: Dialect, data: st.DataObject) -> None:
    signs = ["}", "}}", "]", "\n", " ", "'", '"', "\\", ","]
    bits = [*marks_of(dialect), '{"name": "f"', '"arguments": {', "f(", "f", "text=", "f{text:", ">>>all\n", *signs]
    anything = st.text(st.characters(exclude_categories=()), max_size=4)
    text = "".join(data.draw(st.lists(st.one_of(st.sampled_from(bits), anything), max_size=25)))
    step = data.draw(st.integers(1, 9))
    pieces = read(dialect, text)
    assert is_in_order(pieces)
    assert read(dialect, [text[at : at + step] for at in range(0, len(text), step)]) == pieces
    for piece in broken_in(pieces):
        assert "\n" not in piece.why


@ALL
@FAST
@given(data=st.binary(max_size=200))
def test_no_bytes_make_it_raise(dialect: Dialect, data: bytes) -> None:
    text = dialect.trigger + data.decode("utf-8", "replace") + data.decode("latin-1")
    assert is_in_order(read(dialect, text))


@ALL
def test_after_the_end_nothing_comes(dialect: Dialect) -> None:
    parser = StreamParser(dialect, TOOLS, thinking=THINK)
    parser.feed("all\nwords")
    parser.finish()
    assert parser.feed("more") == []
    assert parser.finish() == []


def test_it_does_not_matter_how_deep_the_caller_stands() -> None:
    """Little stack is left, and the answer nests as deep as it may: an error of Python's must not come out."""
    answer = f'<tool_call>{{"name": "f", "arguments": {{"items": {"[" * 63}{"]" * 63}}}}}</tool_call>'

    def down(levels: int) -> list[Piece]:
        return down(levels - 1) if levels else read(HERMES, answer)

    depth = 0
    frame = sys._getframe()
    while frame.f_back:
        frame = frame.f_back
        depth += 1
    assert calls_in(down(sys.getrecursionlimit() - depth - 250))


def test_values_are_read_strictly_or_loosely_but_never_guessed() -> None:
    assert read_json(' {"a": [1, -2.5e1, true, null, "\\ud83c\\udf31"]} ') == {"a": [1, -25.0, True, None, "\U0001f331"]}
    assert read_loose('{\'a\': (1, "b"), "c": [None, true,],}') == {"a": [1, "b"], "c": [None, True]}
    assert read_loose("'\\x41\\u00e9\\d\\'\\\n'") == "Aé\\d'"
    assert read_keywords("a=1, \"b c\"=[2], d=''", []) == {"a": 1, "b c": [2], "d": ""}
    assert read_keywords("", list(PROPERTIES)) == {}
    for bad in ("", "{", "[1 2]", "{'a' 1}", "{1: 2}", "07", "1_000", "f()", "a", "'", "1 2", "{'a': 1, 'a': 2}", "--1", "0x10"):
        with pytest.raises(BadValueError):
            read_loose(bad)
    for bad in ("a=", "a=1 b=2", "=1", "a==1", "**a", "a=1,,b=2"):
        with pytest.raises(BadValueError):
            read_keywords(bad, [])
