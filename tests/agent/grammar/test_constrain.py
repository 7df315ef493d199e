"""What may come next in an answer: words, thoughts and calls in every dialect, token by token."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.dialects.constrain import Constraint
from agent.dialects.families import DIALECTS, FUNCTIONARY32, HERMES, LLAMA3, MINICPM5, QWEN_CODER, THINK
from agent.errors import SchemaError
from tests.fixtures.generated import runs

WATER = {
    "type": "object",
    "properties": {"bed": {"type": "integer", "minimum": 1, "maximum": 4}, "note": {"type": "string"}},
    "required": ["bed"],
}
TOOLS = [{"name": "water", "parameters": WATER}, {"name": "wait", "parameters": {"type": "object", "properties": {}}}]
THINKING = {"open": THINK.open, "close": THINK.close}


def constraint(dialect: Any = HERMES, **more: Any) -> Constraint:
    return Constraint.from_spec({"dialect": dialect.to_dict(), "tools": TOOLS, **more})


def feed(at: Constraint, *pieces: str | bytes, special: bool = False) -> Constraint:
    for piece in pieces:
        at.commit(piece.encode() if isinstance(piece, str) else piece, special)
    return at


def accepts(at: Constraint, piece: str | bytes, special: bool = False) -> bool:
    return at.accepts(piece.encode() if isinstance(piece, str) else piece, special)


WRITTEN = {
    "hermes": '<tool_call>\n{"name": "water", "arguments": {"bed": 2, "note": "a \\"b\\""}}\n</tool_call>',
    "qwen-coder": "<tool_call>\n<function=water>\n<parameter=bed>\n2\n</parameter>\n<parameter=note>\n"
    'a "b"\n</parameter>\n</function>\n</tool_call>',
    "llama3": '{"name": "water", "parameters": {"bed": 2, "note": "a \\"b\\""}}',
    "lfm2": '<|tool_call_start|>[water(bed=2, note="a \\"b\\"")]<|tool_call_end|>',
    "gemma4": '<|tool_call>call:water{bed:2,note:<|"|>a "b"<|"|>}<tool_call|>',
    "functiongemma": '<start_function_call>call:water{bed:2,note:<escape>a "b"<escape>}<end_function_call>',
    "ministral": '[TOOL_CALLS]water[ARGS]{"bed": 2, "note": "a \\"b\\""}',
    "mistral-small": '[TOOL_CALLS]water[CALL_ID]aXBxc3D4e[ARGS]{"bed": 2, "note": "a \\"b\\""}',
    "mistral-nemo": '[TOOL_CALLS][{"name": "water", "arguments": {"bed": 2, "note": "a \\"b\\""}, "id": "aXBxc3D4e"}]',
    "minicpm5": '<function name="water"><param name="bed">2</param><param name="note">a "b"</param></function>',
    "granite3": '<|tool_call|>[{"name": "water", "arguments": {"bed": 2, "note": "a \\"b\\""}}]',
    "phi4": '<|tool_call|>[{"name": "water", "arguments": {"bed": 2, "note": "a \\"b\\""}}]<|/tool_call|>',
    "functionary-3.1": '<function=water>{"bed": 2, "note": "a \\"b\\""}</function>',
    "functionary-3.2": '>>>water\n{"bed": 2, "note": "a \\"b\\""}',
    "deepseek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>water\n```json\n"
    '{"bed": 2, "note": "a \\"b\\""}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    "harmony": 'to=functions.water<|channel|>commentary json<|message|>{"bed": 2, "note": "a \\"b\\""}<|call|>',
    "command": '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "water", '
    '"parameters": {"bed": 2, "note": "a \\"b\\""}}\n]<|END_ACTION|>',
    "kimi-k3": '<|close|>response<|sep|><|open|>tools<|sep|><|open|>call tool="water" index="1"<|sep|>'
    '<|open|>argument key="bed" type="number"<|sep|>2<|close|>argument<|sep|>'
    '<|open|>argument key="note" type="string"<|sep|>a "b"<|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|>',
    "solar": "<|tool_calls|><|tool_call:begin|>aXBxc3D4e<|tool_call:name|>water<|tool_call:args|>"
    '{"bed": 2, "note": "a \\"b\\""}<|tool_call:end|><|calls|>',
}
WRITTEN["generic"] = WRITTEN["hermes"]


@pytest.mark.parametrize("name", sorted(DIALECTS))
@pytest.mark.parametrize("choice", ["auto", "required", "water"])
def test_a_call_is_written_in_its_dialect(name: str, choice: str) -> None:
    whole = WRITTEN[name].encode()
    at = constraint(DIALECTS[name], choice=choice)
    for size in (1, 3, 7, len(whole)):
        at = constraint(DIALECTS[name], choice=choice)
        for start in range(0, len(whole), size):
            piece = whole[start : start + size]
            assert at.accepts(piece, False), f"{piece!r} at {start}"
            at.commit(piece, False)
    assert at.may_end()
    assert at.phase in ("call", "done")
    wrong = constraint(DIALECTS[name], choice=choice)
    assert not accepts(wrong, WRITTEN[name].replace("2", "5", 1))
    assert not accepts(wrong, WRITTEN[name].replace("water", "fire", 1))


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_with_auto_words_are_free_until_a_call_begins(name: str) -> None:
    dialect = DIALECTS[name]
    at = constraint(dialect)
    assert at.free
    assert at.may_end()
    feed(at, "Let me see", b"\xf0\x9f", b"\x8c\xb1")
    assert at.phase == "text"
    assert accepts(at, "<|some_other_token|>", special=True)
    if dialect.only_at_start:
        feed(at, WRITTEN[name])
        assert at.free
        return
    feed(at, dialect.trigger)
    assert not at.free
    assert at.phase == "call"
    assert not at.may_end()
    assert not accepts(at, "Let me see")


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_without_calls_one_can_never_begin(name: str) -> None:
    dialect = DIALECTS[name]
    at = constraint(dialect, choice="none")
    feed(at, *([] if dialect.only_at_start else ["So: "]), dialect.trigger[:-1])
    assert at.may_end()
    assert not accepts(at, dialect.trigger[-1])
    assert not accepts(at, dialect.trigger[-1] + "x")
    assert accepts(at, "\u2603")


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_several_calls_are_at_most_eight_and_one_where_there_may_be_only_one(name: str) -> None:
    dialect = DIALECTS[name]
    written = WRITTEN[name]
    inner = written.removeprefix(dialect.section_open).removesuffix(dialect.section_close)
    for parallel in (True, False):
        at = constraint(dialect, choice="required", parallel=parallel)
        most = 8 if parallel and dialect.parallel else 1
        feed(at, dialect.section_open + dialect.separator.join([inner] * most))
        assert not accepts(at, dialect.separator + inner)
        if dialect.section_close:
            feed(at, dialect.section_close)
        assert at.phase == "done"
        assert at.may_end()
        assert not accepts(at, "And now")


def test_a_token_that_straddles_the_beginning_of_a_call_must_go_on_as_one() -> None:
    at = feed(constraint(), "Sure. <tool")
    assert accepts(at, '_call>\n{"name')
    assert not accepts(at, "_call> {")
    assert not accepts(at, "_call> and so on")
    assert accepts(at, "_box> and so on")
    whole = feed(constraint(), 'I will.<tool_call>\n{"name": "wa')
    assert whole.next_chars() == {"t", "i"}


def test_control_tokens_pass_only_where_the_dialect_has_a_mark() -> None:
    at = constraint(choice="required")
    assert accepts(at, "<tool_call>", special=True)
    feed(at, "<tool_call>", special=True)
    assert not accepts(at, '\n{"name', special=True)
    feed(at, '\n{"name": "water", "arguments": {"bed": 1, "note": "')
    assert accepts(at, "</tool_call>")
    assert not accepts(at, "</tool_call>", special=True)
    assert not accepts(at, "<|im_end|>", special=True)
    feed(at, '"}}\n')
    assert accepts(at, "</tool_call>", special=True)


def test_the_name_of_a_property_is_not_the_dialects_own() -> None:
    mark = "<|im_end|>"
    tools = [{"name": "t", "parameters": {"type": "object", "properties": {mark: {"type": "null"}}, "required": [mark]}}]
    at = Constraint.from_spec({"dialect": HERMES.to_dict(), "tools": tools, "choice": "required"})
    feed(at, '<tool_call>\n{"name": "t", "arguments": {"')
    assert not accepts(at, "<|im_end|>", special=True)
    assert accepts(at, "<|im_end|>")
    assert at.forced()[0] == ('<|im_end|>": null}}', False)


def test_what_is_forced_runs_on_across_marks() -> None:
    at = constraint(choice="water")
    assert at.forced() == [("<tool_call>\n", True), ('{"name": "water", "arguments": {"bed": ', False)]
    text = "".join(part for part, _ in at.forced())
    assert at.peek(text) == set("1234")
    assert at.after(text).phase == "call"
    assert at.forced(), "looking ahead changed nothing"
    feed(at, text, "3")
    assert at.forced() == []
    assert at.next_chars() == {",", "}"}
    feed(at, "}}")
    assert at.forced() == [("\n</tool_call>", True)]
    with pytest.raises(ValueError):
        at.after("x")


def test_a_thought_comes_first_and_its_end_cannot_be_skipped() -> None:
    for choice in ("auto", "required", "water", "none"):
        at = constraint(choice=choice, thinking=THINKING, started=True)
        assert at.phase == "thinking"
        assert at.free
        assert not at.may_end()
        feed(at, "I could <tool_call> or not")
        assert at.phase == "thinking"
        assert at.close_thinking() == "</think>"
        feed(at, " </th")
        assert at.close_thinking() == "ink>"
        feed(at, at.close_thinking())
        assert at.phase == ("text" if choice in ("auto", "none") else "call")
        assert accepts(at, "\n\n<tool_call>\n") == (choice != "none")
        assert accepts(at, "Hello") == (choice in ("auto", "none"))


@given(st.sampled_from(["</think>", "aba", "aab", "<<a", "[/a]"]), st.text("ab<>[]/think\u2603", max_size=12))
@settings(max_examples=runs(300), deadline=None, derandomize=True)
def test_a_thought_can_be_ended_wherever_it_stands_but_within_a_character(close: str, thought: str) -> None:
    at = constraint(choice="required", thinking={"open": "<o>", "close": close}, started=True)
    so_far = ""
    for byte in thought.encode():
        feed(at, bytes([byte]))
        so_far = (so_far.encode("latin-1") + bytes([byte])).decode("latin-1")
        if close in so_far:
            return
        whole = byte < 0x80 or so_far.encode("latin-1").endswith("\u2603".encode())
        rest = at.close_thinking()
        assert bool(rest) == whole
        if whole:
            assert (so_far + rest).endswith(close)
            assert at.after(rest).phase == "call"


def test_a_thought_may_be_left_out_where_the_prompt_began_none() -> None:
    at = constraint(choice="required", thinking=THINKING)
    assert accepts(at, "<tool_call>", special=True)
    assert accepts(at, "<think>", special=True)
    assert accepts(at, "\n<think>\nhm")
    assert not accepts(at, "Well")
    feed(at, "<think>")
    assert at.phase == "thinking"
    free = feed(constraint(thinking=THINKING), "<th")
    assert free.close_thinking() == ""
    feed(free, "ink>hm")
    assert free.phase == "thinking"
    assert not free.may_end()
    feed(free, "</think>Hi")
    assert free.phase == "text"
    assert free.close_thinking() == ""


def test_llama_calls_only_with_its_first_words() -> None:
    assert not accepts(constraint(LLAMA3), '\n{"name": "fire"')
    assert accepts(constraint(LLAMA3), '\n{"name": "water"')
    assert accepts(constraint(LLAMA3), '{"nam": 1}')
    assert accepts(constraint(LLAMA3), 'So {"name": "fire"')
    at = feed(constraint(LLAMA3, thinking=THINKING), '<think>{"name" x</think>\n')
    assert not accepts(at, '{"name": "fire"')


def test_functionary_names_a_recipient_for_everything() -> None:
    at = constraint(FUNCTIONARY32, prefix=">>>")
    assert at.next_chars() == {"a", "w"}
    assert not at.may_end()
    assert accepts(at, "all\nHi")
    assert not accepts(at, "Hi")
    called = feed(constraint(FUNCTIONARY32, prefix=">>>"), 'water\n{"bed": 1}')
    assert called.may_end()
    feed(called, ">>>wait\n{}")
    assert called.may_end()
    feed(at, "all\nHi there. >")
    assert at.free
    assert accepts(at, ">>water")
    assert not accepts(at, ">>fire")
    feed(at, '>>water\n{"bed": 4}')
    assert at.may_end()
    none = constraint(FUNCTIONARY32, prefix=">>>", choice="none")
    assert none.forced() == [("all\n", True)]
    required = constraint(FUNCTIONARY32, prefix=">>>", choice="wait")
    assert required.forced() == [("wait", False), ("\n", True), ("{}", False)]


def test_a_lax_model_may_leave_the_outer_mark_out() -> None:
    at = feed(constraint(QWEN_CODER), "Now: <function=")
    assert at.phase == "call"
    assert accepts(at, "water>\n<parameter=bed>\n3\n</parameter>\n</function>\n</tool_call>")


def test_markup_in_a_value_stands_in_a_section_of_its_own() -> None:
    at = feed(constraint(MINICPM5, choice="water"), '<function name="water"><param name="bed">1</param><param name="note">')
    assert not accepts(at, "a<b</param>")
    assert accepts(at, "<![CDATA[a<b && </param>]]></param></function>")
    assert not accepts(at, "<![CDATA[a]]>b")


def test_a_whole_answer_by_a_schema() -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    at = constraint(schema=schema, thinking=THINKING)
    assert at.phase == "answer"
    feed(at, "<think>a</think>\n", '{"ok": ')
    assert at.next_chars() == {"t", "f"}
    feed(at, "true}")
    assert at.phase == "done"
    assert at.may_end()
    assert not accepts(at, " ")
    assert constraint(schema={"const": "a"}).forced() == [('"a"', False)]


def test_a_character_may_come_in_parts() -> None:
    at = feed(constraint(choice="water"), '<tool_call>\n{"name": "water", "arguments": {"bed": 1, "note": "')
    for part in (b"\xf0", b"\x9f\x8c", b"\xb1ab"):
        assert not at.may_end()
        assert at.accepts(part, False)
        at.commit(part, False)
    assert at.accepts(b'ok"', False)
    assert not at.accepts(b"\xff", False)
    assert not at.accepts(b"\xc0", False)
    assert not at.accepts(b"\xed\xa0", False)
    at.commit(b"\xe2\x98", False)
    assert at.forced() == []
    assert at.next_chars() is None
    assert not at.accepts(b"a", False)
    assert not at.accepts(b"\x83", True)
    assert at.accepts(b"\x83", False)


def test_half_a_character_passes_only_if_a_whole_one_could() -> None:
    schema = {"type": "string", "pattern": "^[\u00e9\u2603]*$"}
    at = feed(constraint(schema=schema), '"')
    assert at.accepts(b"\xc3", False)
    assert at.accepts(b"\xe2\x98", False)
    assert not at.accepts(b"\xe2\x97", False)
    assert not at.accepts(b"\xc4", False)
    assert not at.accepts(b"\xf0", False)


def test_without_enforcement_everything_passes_and_phases_are_still_told() -> None:
    at = constraint(thinking=THINKING, started=True, enforce=False)
    assert at.phase == "thinking"
    feed(at, "hm</think>Now <tool_call>\n")
    assert at.phase == "call"
    assert accepts(at, "nonsense")
    feed(at, "nonsense")
    assert at.phase == "text"
    assert at.may_end()
    assert at.free
    assert at.forced() == []
    feed(at, " again <tool_call>")
    assert at.phase == "call"
    feed(at, b"\xff")
    assert at.phase == "text"


@pytest.mark.parametrize("choice", [None, "auto", "required", "none", "water", "go"])
def test_without_enforcement_words_may_follow_nonsense_and_calls_where_there_are_any(choice: str | None) -> None:
    tools = [*TOOLS, {"name": "go", "parameters": {}}]
    at = constraint(tools=tools, choice=choice, thinking=THINKING, enforce=False)
    assert at.phase == ("text" if choice in (None, "auto", "none") else "call")
    feed(at, "<think>hm</think>\n<tool_call>", "no call")
    assert at.phase == "text"
    feed(at, '\n<tool_call>\n{"name": "wait"')
    assert at.phase == ("text" if choice == "none" else "call")


@given(st.integers(0, 2**60))
@settings(max_examples=runs(200), deadline=None, derandomize=True)
def test_what_is_only_looked_at_changes_nothing(seed: int) -> None:
    r = random.Random(seed)
    name = r.choice(sorted(DIALECTS))
    at, twin = (constraint(DIALECTS[name], thinking=THINKING) for _ in range(2))
    left = b"<think>\xe2\x98\x83</think>" * r.randint(0, 1) + WRITTEN[name].encode()
    while left:
        piece, left = left[: (size := r.randint(1, 9))], left[size:]
        for other in r.sample([piece, left[:3], b"", b"x", b"~", b"<tool_call>", b"\xff", b"\xe2"], 3):
            special = r.random() < 0.5
            assert at.accepts(other, special) == twin.accepts(other, special)
        at.accepts(r.choice([piece, b"", b"~", b"\x01", left[:3]]), r.random() < 0.5)
        for one in (at, twin):
            with pytest.raises(ValueError, match="may not come next"):
                one.commit(b"\xff")
            one.commit(piece)
        assert (at.phase, at.may_end(), at.next_chars()) == (twin.phase, twin.may_end(), twin.next_chars())


def test_a_token_that_may_not_come_is_an_error_and_an_empty_one_may_not() -> None:
    at = constraint(choice="required")
    with pytest.raises(ValueError, match="may not come next"):
        at.commit(b"Hello", False)
    assert not at.accepts(b"", False)
    assert at.accepts(b"<tool_call>", False)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"choice": "fire"}, "none of that name"),
        ({"choice": "required", "tools": []}, "there is none"),
        ({"tools": [{"name": "a b", "parameters": {}}]}, "cannot write"),
        ({"tools": [{"name": "t", "parameters": {"properties": {"a": {"pattern": "a{1000000}"}}}}]}, "tool t: "),
        ({"tools": [{"name": "t", "parameters": {"properties": {"a": False}, "required": ["a"]}}]}, "tool t: no arguments"),
        ({"tools": [{"name": "t", "parameters": {"type": "string"}}]}, "tool t: no arguments"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(more: dict[str, Any], words: str) -> None:
    with pytest.raises(SchemaError, match=words) as error:
        constraint(**more)
    assert "\n" not in str(error.value)


def test_without_tools_there_are_only_words() -> None:
    at = constraint(tools=[])
    assert accepts(at, "Hello <tool")
    assert not accepts(at, "Hello <tool_call>")


def test_the_specification_goes_through_json() -> None:
    spec = json.loads(json.dumps({"dialect": HERMES.to_dict(), "tools": TOOLS, "choice": "wait"}))
    at = Constraint.from_spec(spec)
    assert "".join(text for text, _ in at.forced()) == '<tool_call>\n{"name": "wait", "arguments": {}}\n</tool_call>'
