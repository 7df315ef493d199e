"""What small models really write: almost the format. It is read where its meaning is clear."""

from __future__ import annotations

import time
from typing import Any

import pytest

from agent.dialects.base import CallBroken, CallDone, TextPiece, ThinkingPiece
from agent.dialects.families import DIALECTS, GEMMA_THINK, MISTRAL_THINK, THINK
from agent.dialects.parser import StreamParser
from agent.dialects.write import write_calls
from agent.messages import ToolCall
from tests.agent.dialects.test_dialects import TOOLS, broken_in, calls_in, flat, read, text_in, thought_in

F: dict[str, Any] = {"text": "a b", "count": 2}
J = '{"text": "a b", "count": 2}'
CALL = f'{{"name": "f", "arguments": {J}}}'
ONE = [("f", F)]
TWO = [("f", F), ("water_bed", {})]
SECOND = '{"name": "water_bed", "arguments": {}}'


def coder(name: str, **values: str) -> str:
    """A call of Qwen3-Coder's, each value with its line breaks."""
    inner = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    return f"<function={name}>\n{inner}</function>"


def mini(**values: str) -> str:
    """A call of MiniCPM5's."""
    inner = "".join(f'<param name="{key}">{value}</param>' for key, value in values.items())
    return f'<function name="f">{inner}</function>'


def lfm(inner: str) -> str:
    return f"<|tool_call_start|>{inner}<|tool_call_end|>"


def deepseek(name: str, arguments: str) -> str:
    return f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>"


CASES: list[tuple[str, str, list[tuple[str, dict[str, Any]]], str]] = [
    # dialect, answer, calls, words
    ("hermes", f"<tool_call>{CALL}</tool_call>", ONE, ""),
    ("hermes", f"<tool_call>\n{CALL}", ONE, ""),
    ("hermes", f"<tool_call>\n\n  {CALL}\n\n</tool_call>\n", ONE, ""),
    ("hermes", f"Sure.\n\n<tool_call>{CALL}</tool_call>\nDone.", ONE, "Sure.\nDone."),
    ("hermes", f"<tool_call>{CALL}\n{SECOND}</tool_call>", TWO, ""),
    ("hermes", f"<tool_call>[{CALL}, {SECOND}]</tool_call>", TWO, ""),
    ("hermes", f"<tool_call>{CALL}</tool_call><tool_call>{SECOND}</tool_call>", TWO, ""),
    ("hermes", f"<tool_call>{CALL}<tool_call>{SECOND}", TWO, ""),
    ("hermes", f"<tool_call><tool_call>{CALL}</tool_call>", ONE, ""),
    ("hermes", f"<tool_call>\n```json\n{CALL}\n```\n</tool_call>", ONE, ""),
    ("hermes", f"<tool_call>{CALL}}}</tool_call>", ONE, ""),
    ("hermes", f'<tool_call>{{"name":"f","parameters":{J}}}</tool_call>', ONE, ""),
    ("hermes", f'<tool_call>{{"arguments": {J}, "name": "f"}}</tool_call>', ONE, ""),
    ("hermes", f'<tool_call>{{"type": "function", "function": {{"name": "f", "arguments": {J}}}}}</tool_call>', ONE, ""),
    ("hermes", f'<tool_call>{{"function": "f", "arguments": {J}}}</tool_call>', ONE, ""),
    ("hermes", r'<tool_call>{"name": "f", "arguments": "{\"text\": \"a b\", \"count\": 2}"}</tool_call>', ONE, ""),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"text": "a b", "count": 2,},}</tool_call>', ONE, ""),
    ("hermes", "<tool_call>{'name': 'f', 'arguments': {'text': 'a b', 'count': 2}}</tool_call>", ONE, ""),
    ("hermes", "<tool_call>{'name': 'f', 'arguments': {'on': True, 'gap': None}}</tool_call>",
     [("f", {"on": True, "gap": None})], ""),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"on": False}}</tool_call>', [("f", {"on": False})], ""),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"text": "a\nb"}}</tool_call>', [("f", {"text": "a\nb"})], ""),
    ("hermes", '<tool_call>{"name": "f", "arguments": null}</tool_call>', [("f", {})], ""),
    ("hermes", '<tool_call>{"name": "f"}</tool_call>', [("f", {})], ""),
    ("hermes", '<tool_call>{"name": "f", "arguments": ""}</tool_call>', [("f", {})], ""),
    ("hermes", '<tool_call>{"name": "new", "arguments": {}}</tool_call>', [("new", {})], ""),
    ("hermes", CALL, ONE, ""),
    ("hermes", f" \n{CALL}\n ", ONE, ""),
    ("hermes", f"```json\n{CALL}\n```", ONE, ""),
    ("hermes", f"```\n[{CALL}, {SECOND}]\n```\n", TWO, ""),
    ("generic", f"{CALL}\n{SECOND}", TWO, ""),
    ("hermes", f"<think>\nx\n</think>\n\n{CALL}", ONE, ""),
    ("hermes", f"{CALL} is how.", [], f"{CALL} is how."),
    ("hermes", f"Like so: {CALL}", [], f"Like so: {CALL}"),
    ("hermes", f"```json\n{CALL}\n```\nThis calls it.", [], f"```json\n{CALL}\n```\nThis calls it."),
    ("hermes", '{"name": "Bob", "arguments": {}}', [], '{"name": "Bob", "arguments": {}}'),
    ("hermes", '{"name": "f", "age": 3}', [], '{"name": "f", "age": 3}'),
    ("hermes", '{"name": "f"}', [], '{"name": "f"}'),
    ("hermes", f'{{"x": 1}}\n<tool_call>{CALL}</tool_call>', ONE, '{"x": 1}'),
    # The mark before a call is missing, and the one behind it is not; or it is another family's.
    ("hermes", f"{CALL}\n</tool_call>", ONE, ""),
    ("hermes", f"{CALL}\n</tool_call>\n{SECOND}\n</tool_call>", TWO, ""),
    ("hermes", f"{CALL}\n</tool_call>\nDone.", ONE, "Done."),
    ("hermes", f"{CALL}<|im_end|>", ONE, ""),
    ("hermes", f"Sure!\n{CALL}", ONE, "Sure!"),
    ("hermes", f"Sure!\n{CALL}\n</tool_call>", ONE, "Sure!"),
    ("hermes", f"<tools>{CALL}</tools>", ONE, ""),
    ("hermes", f"<function_call>\n{CALL}\n</function_call>", ONE, ""),
    ("hermes", f"<function=f>{J}</function>", ONE, ""),
    ("hermes", f"Sure.\n<|tool_call|>[{CALL}]<|/tool_call|>", ONE, "Sure."),
    ("hermes", 'f(text="a b", count=2)', ONE, ""),
    ("hermes", f"f\n{J}", ONE, ""),
    ("phi4", f"functools[{CALL}, {SECOND}]", TWO, ""),
    ("phi4", f"<tool_call>{CALL}</tool_call>", ONE, ""),
    ("lfm2", '[f(text="a b", count=2)]', ONE, ""),
    ("lfm2", '[f(text="a b", count=2)]<|tool_call_end|>Done.', ONE, "Done."),
    ("qwen-coder", CALL, ONE, ""),
    ("llama3", f"<tool_call>{CALL}</tool_call>", ONE, ""),
    # A text that quotes a call: behind a colon, in a code block, in the middle of a line, before more words, of no known tool.
    ("hermes", f"The file says:\n{CALL}", [], f"The file says:\n{CALL}"),
    ("hermes", f"As in\n```json\n{CALL}\n```", [], f"As in\n```json\n{CALL}\n```"),
    ("hermes", f"As in\n```json\n{CALL}", [], f"As in\n```json\n{CALL}"),
    ("hermes", f"See\n{CALL}\nfor it.", [], f"See\n{CALL}\nfor it."),
    ("hermes", "See\n<tools>x</tools> of it", [], "See\n<tools>x</tools> of it"),
    ("hermes", f"It is <tools>{CALL}</tools>", [], f"It is <tools>{CALL}</tools>"),
    ("hermes", 'No: f(text="a")', [], 'No: f(text="a")'),
    ("hermes", 'f(text="a") is how', [], 'f(text="a") is how'),
    ("hermes", 'g(text="a")', [], 'g(text="a")'),
    ("hermes", '<tools>{"name": "g", "arguments": {}}</tools>', [], '<tools>{"name": "g", "arguments": {}}</tools>'),
    # Between the marks, any form.
    ("hermes", f"<tool_call>\n{{{CALL}}}\n</tool_call>", ONE, ""),
    ("hermes", '<tool_call>\n{"name": "f", "arguments": {"text": "a b", "count": 2}\n</tool_call>', ONE, ""),
    ("hermes", '<tool_call>\n{"name": "f", "arguments": {"text": "a b", "count": 2\n</tool_call>', ONE, ""),
    ("hermes", '<tool_call>\n{"name": "f", "text": "a b", "count": 2}\n</tool_call>', ONE, ""),
    ("hermes", '<tool_call>\nf(text="a b", count=2)\n</tool_call>', ONE, ""),
    ("hermes", "<tool_call>f(text: a b, count: 2)</tool_call>", ONE, ""),
    ("hermes", f"<tool_call>f\n{J}</tool_call>", ONE, ""),
    ("hermes", f"<tool_call>\n{coder('f', text='a b', count='2')}\n</tool_call>", ONE, ""),
    ("hermes", f'<tool_call>{{"f": {J}}}</tool_call>', ONE, ""),
    ("qwen-coder", '<tool_call>\nf(text="a b", count=2)\n</tool_call>', ONE, ""),
    ("qwen-coder", f"<tool_call>f\n{J}\n</tool_call>", ONE, ""),
    ("qwen-coder", f"<function=f>\n{J}\n</function>", ONE, ""),
    ("qwen-coder", coder("f", text='print("</parameter>")'), [("f", {"text": 'print("</parameter>")'})], ""),
    ("qwen-coder", "<tool_call>\n<function=f>\n<parameter=text>\na b\n</function>\n</tool_call>", [("f", {"text": "a b"})], ""),
    ("ministral", '[TOOL_CALLS]f(text="a b", count=2)', ONE, ""),
    ("harmony", f"<|channel|>commentary to=functions.f <|constrain|>json<|message|>{J}<|call|>", ONE, ""),
    ("harmony", f" to=functions.f<|channel|>analysis<|message|>{J}", ONE, ""),
    ("harmony", "<|channel|>final<|message|>Yes.<|return|>", [], "Yes."),
    ("command", f'<|START_ACTION|>[\n    {{"tool_call_id": "0", "tool_name": "f", "parameters": {J}}}\n]<|END_ACTION|>', ONE, ""),
    ("command", "<|START_RESPONSE|>Yes.<|END_RESPONSE|>", [], "Yes."),
    ("qwen-coder", f"<tool_call>\n{coder('f', text='a b', count='2')}\n</tool_call>", ONE, ""),
    ("qwen-coder", coder("f", text="a b", count="2"), ONE, ""),
    ("qwen-coder", "<function=f><parameter=text>a b</parameter><parameter=count>2</parameter></function>", ONE, ""),
    ("qwen-coder", "Yes.\n<tool_call><function=water_bed></function></tool_call>", [("water_bed", {})], "Yes."),
    ("qwen-coder", coder("f", text="\n12\n"), [("f", {"text": "\n12\n"})], ""),
    ("qwen-coder", coder("f", on="True", gap="None"), [("f", {"on": True, "gap": None})], ""),
    ("qwen-coder", coder("f", count="many"), [("f", {"count": "many"})], ""),
    ("qwen-coder", coder("f", items='[1, "x"]'), [("f", {"items": [1, "x"]})], ""),
    ("qwen-coder", coder("g", a='{"k": 1}', b="3 beds"), [("g", {"a": {"k": 1}, "b": "3 beds"})], ""),
    ("qwen-coder", f"<tool_call>\n{CALL}\n</tool_call>", ONE, ""),
    ("minicpm5", mini(text="a b", count="2"), ONE, ""),
    ("minicpm5", mini(text="a &lt;&amp;&gt; &quot;b&quot; &nbsp;"), [("f", {"text": 'a <&> "b" &nbsp;'})], ""),
    ("minicpm5", mini(text="\n<![CDATA[a <b> &amp; </param>]]>\n"), [("f", {"text": "a <b> &amp; </param>"})], ""),
    ("minicpm5", mini(text="<![CDATA[a]]]]><![CDATA[>b]]>"), [("f", {"text": "a]]>b"})], ""),
    ("minicpm5", mini(items="<![CDATA[[1,\n2]]]>"), [("f", {"items": [1, 2]})], ""),
    ("lfm2", '<|tool_call_start|>[f(text="a b", count=2)]<|tool_call_end|>', ONE, ""),
    ("lfm2", "<|tool_call_start|>[f(text='a b', count=2), water_bed()]<|tool_call_end|>Done.", TWO, "Done."),
    ("lfm2", '<|tool_call_start|>f(text="a b", count=2)<|tool_call_end|>', ONE, ""),
    ("lfm2", '<|tool_call_start|>[f("a b", 2)]<|tool_call_end|>', ONE, ""),
    ("lfm2", '<|tool_call_start|>[f("a b", count = 2,)]', ONE, ""),
    ("lfm2", lfm('[f(on=true, gap=null, more={"k": [False, None]}, share=-1.5e3)]'),
     [("f", {"on": True, "gap": None, "more": {"k": [False, None]}, "share": -1500.0})], ""),
    ("lfm2", lfm("[f(text='it\\'s \"so\" \\u00fc\\n', items=(1, 2))]"),
     [("f", {"text": 'it\'s "so" ü\n', "items": [1, 2]})], ""),
    ("lfm2", '<|tool_call_start|>[f(text="two\nlines)]")]<|tool_call_end|>', [("f", {"text": "two\nlines)]"})], ""),
    ("lfm2", f"<|tool_call_start|>[{CALL}]<|tool_call_end|>", ONE, ""),
    ("lfm2", "<|tool_call_start|>[]<|tool_call_end|>", [], ""),
    ("llama3", f'{{"name": "f", "parameters": {J}}}', ONE, ""),
    ("llama3", f"<|python_tag|>{CALL}", ONE, ""),
    ("llama3", f" \n{CALL}; {SECOND}", TWO, ""),
    ("llama3", f"[{CALL}, {SECOND}]", TWO, ""),
    ("llama3", f"```json\n{CALL}\n```", ONE, ""),
    ("llama3", '{"type": "function", "name": "new", "parameters": {"a": 1}}', [("new", {"a": 1})], ""),
    ("llama3", '<|python_tag|>f.call(text="a b", count=2)', ONE, ""),
    ("llama3", "<|python_tag|>print(1)", [], "print(1)"),
    ("llama3", f"{CALL} Done.", ONE, "Done."),
    ("llama3", f"Sure: {CALL}", [], f"Sure: {CALL}"),
    ("llama3", '{"name": "Bob", "age": 3}', [], '{"name": "Bob", "age": 3}'),
    ("llama3", '{"beds": [1, 2]}', [], '{"beds": [1, 2]}'),
    ("llama3", "{", [], "{"),
    ("gemma4", '<|tool_call>call:f{text:<|"|>a b<|"|>,count:2}<tool_call|>', ONE, ""),
    ("gemma4", '<|tool_call>f{ text: "a b", count: 2 }<tool_call|><|tool_call>call:water_bed{}<tool_call|>', TWO, ""),
    ("gemma4", '<|tool_call>call:f{text:a b,count:2}', ONE, ""),
    ("gemma4", '<|tool_call>call:f{more:{<|"|>k<|"|>:[true,null,-1.5]},text:<|"|>}{"\\n<|"|>}<tool_call|>',
     [("f", {"more": {"k": [True, None, -1.5]}, "text": '}{"\\n'})], ""),
    ("functiongemma", "<start_function_call>call:f{count:2,text:<escape>a b<escape>}<end_function_call>", ONE, ""),
    ("ministral", f"Yes.[TOOL_CALLS]f[ARGS]{J}[TOOL_CALLS]water_bed[ARGS]{{}}", TWO, "Yes."),
    ("ministral", f"[TOOL_CALLS]f{J}", ONE, ""),
    ("ministral", f"[TOOL_CALLS][{CALL}, {SECOND}]", TWO, ""),
    ("mistral-small", r'[TOOL_CALLS]f[ARGS]"{\"text\": \"a b\", \"count\": 2}"', ONE, ""),
    ("mistral-nemo", f"[TOOL_CALLS] {CALL}", ONE, ""),
    ("mistral-nemo", f"[TOOL_CALLS][{CALL}]", ONE, ""),
    ("granite3", f"<|tool_call|>{CALL}", ONE, ""),
    ("granite3", f"<|tool_call|> [ {CALL} , {SECOND} ]", TWO, ""),
    ("granite3", "<|tool_call|>[]", [], ""),
    ("phi4", f"<|tool_call|>{CALL}<|/tool_call|>", ONE, ""),
    ("phi4", f"<|tool_call|>[{CALL},{SECOND}]<|/tool_call|>", TWO, ""),
    ("functionary-3.1", f"Yes.<function=f>{J}</function><function=water_bed></function>", TWO, "Yes."),
    ("functionary-3.2", f"all\nYes.>>>f\n{J}>>>water_bed\n{{}}", TWO, "Yes."),
    ("functionary-3.2", f"f\n{J}", ONE, ""),
    ("functionary-3.2", f"new\n{J}", [("new", F)], ""),
    ("functionary-3.2", "Hello there.\nHow are you?", [], "Hello there.\nHow are you?"),
    ("functionary-3.2", "all\nIn Python:\n>>> 1 + 1\n2", [], "In Python:\n>>> 1 + 1\n2"),
    ("functionary-3.2", "Hello\nyou", [], "Hello\nyou"),
    ("functionary-3.2", "all", [], ""),
    ("deepseek", f"<｜tool▁calls▁begin｜>{deepseek('f', J)}\n{deepseek('water_bed', '{}')}<｜tool▁calls▁end｜>", TWO, ""),
    ("deepseek", f"Yes.{deepseek('f', J)}", ONE, "Yes."),
    ("deepseek", f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{J}<｜tool▁call▁end｜>", ONE, ""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "calls", "words"), CASES, ids=lambda value: repr(value)[:50])
def test_almost_right_is_read(name: str, answer: str, calls: list[tuple[str, dict[str, Any]]], words: str) -> None:
    pieces = read(DIALECTS[name], answer)
    assert [(call.name, call.arguments) for call in calls_in(pieces)] == calls
    assert text_in(pieces) == words
    assert not broken_in(pieces)
    assert read(DIALECTS[name], list(answer)) == pieces
    for cut in range(len(answer)):
        assert read(DIALECTS[name], [answer[:cut], answer[cut:]]) == pieces


@pytest.mark.parametrize(
    ("answer", "thought", "words"),
    [
        ("<think>\na\n\nb\n</think>\n\nYes.", "a\n\nb", "Yes."),
        ("<think>a</think>Yes.", "a", "Yes."),
        ("\n<think>\n\n</think>\n\nYes.", "", "Yes."),
        ("</think>\n\nYes.", "", "Yes."),
        ("<think>a</think></think>Yes.", "a", "Yes."),
        ("<think>never ends", "never ends", ""),
        ("Yes, <think> a < b </think> and no.", "a < b", "Yes,\nand no."),
        ("A </think> in the middle", "", "A </think> in the middle"),
        ("<think>look: <tool_call> is a mark</think>Yes.", "look: <tool_call> is a mark", "Yes."),
    ],
)
def test_a_thought_is_taken_out(answer: str, thought: str, words: str) -> None:
    pieces = read(DIALECTS["hermes"], list(answer))
    assert (thought_in(pieces), text_in(pieces)) == (thought, words)
    assert read(DIALECTS["hermes"], answer) == pieces


@pytest.mark.parametrize(
    ("answer", "thought", "calls"),
    [
        (f"<think>I should call.\n<tool_call>\n{CALL}\n</tool_call>", "I should call.", ONE),
        (f"<think>The mark is <tool_call>.\n<tool_call>\n{CALL}\n</tool_call>", "The mark is <tool_call>.", ONE),
        (f"<think>No: <tool_call>{CALL}</tool_call> is wrong.</think>", f"No: <tool_call>{CALL}</tool_call> is wrong.", []),
        (f"<think>Use <tool_call>{SECOND}</tool_call></think>\n<tool_call>{CALL}</tool_call>",
         f"Use <tool_call>{SECOND}</tool_call>", ONE),
        ('<think>As <tool_call>{"name": "g", "arguments": {}}</tool_call>',
         'As <tool_call>{"name": "g", "arguments": {}}</tool_call>', []),
    ],
)  # fmt: skip
def test_a_call_in_a_thought_counts_only_where_the_thought_never_ends(
    answer: str, thought: str, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    pieces = read(DIALECTS["hermes"], answer)
    assert (thought_in(pieces), text_in(pieces)) == (thought, "")
    assert [(call.name, call.arguments) for call in calls_in(pieces)] == calls
    assert read(DIALECTS["hermes"], list(answer)) == pieces


@pytest.mark.parametrize("name", [name for name, dialect in DIALECTS.items() if not dialect.text_name])
@pytest.mark.parametrize("bare", [False, True])
def test_nothing_of_a_call_that_was_cut_off_is_words(name: str, bare: bool) -> None:
    dialect = DIALECTS[name]
    call = flat(write_calls(dialect, [ToolCall("f", F, "abc123XYZ")], TOOLS))
    before = "" if bare or dialect.only_at_start else "Let me see.\n"
    whole = before + (CALL if bare else call)
    for end in range(len(before) + 2, len(whole)):
        parser = StreamParser(dialect, TOOLS, thinking=None)
        pieces = [*parser.feed(whole[:end]), *parser.finish(cut=True)]
        assert text_in(pieces).strip() == before.strip(), whole[:end]


def test_many_lines_that_look_like_calls_are_read_in_linear_time() -> None:
    parser = StreamParser(DIALECTS["hermes"], TOOLS, thinking=THINK)
    line = '\n{"name": "f", "arguments": {"text": "'
    started = time.process_time()
    for _ in range(3000):
        parser.feed(line)
    parser.finish()
    assert time.process_time() - started < 5


def test_a_thought_may_have_begun_in_the_prompt() -> None:
    for answer in ("a\n</think>\n\nYes.", "\na</think>Yes.", "<think>\na</think>Yes."):
        assert read(DIALECTS["deepseek"], list(answer), started=True) == [ThinkingPiece("a"), TextPiece("Yes.")]
    gemma = "<|channel>thought\na\n<channel|>Yes.<|channel>thought\n<channel|>"
    assert read(DIALECTS["gemma4"], list(gemma), thinking=GEMMA_THINK) == [ThinkingPiece("a"), TextPiece("Yes.")]
    assert read(DIALECTS["ministral"], "[THINK]a[/THINK]Yes.", thinking=MISTRAL_THINK) == [ThinkingPiece("a"), TextPiece("Yes.")]


def test_without_a_style_of_thinking_its_marks_are_words() -> None:
    assert read(DIALECTS["hermes"], "<think>a</think>b", thinking=None) == [TextPiece("<think>a</think>b")]
    assert read(DIALECTS["hermes"], "a</think>b", thinking=None, started=True) == [TextPiece("a</think>b")]


def test_what_the_prompt_already_says_is_read_with_the_answer() -> None:
    for name, prefix, answer in [
        ("hermes", '<tool_call>\n{"name": "f", "arguments":', f" {J}}}\n</tool_call>"),
        ("llama3", '{"name": "f", "parameters": ', f"{J}}}"),
        ("lfm2", "<|tool_call_start|>[f(", 'text="a b", count=2)]<|tool_call_end|>'),
        ("functionary-3.2", ">>>f\n", J),
        ("functionary-3.2", "f\n", J),
    ]:
        pieces = read(DIALECTS[name], list(answer), prefix=prefix)
        assert calls_in(pieces) == [ToolCall("f", F)]
        assert isinstance(pieces[-1], CallDone)


def test_ids_are_kept_where_a_family_has_them() -> None:
    nemo = f'[TOOL_CALLS][{{"name": "f", "arguments": {J}, "id": "abc123XYZ"}}]'
    small = f"[TOOL_CALLS]f[CALL_ID]abc123XYZ[ARGS]{J}"
    for name, answer in (("mistral-nemo", nemo), ("mistral-small", small)):
        assert calls_in(read(DIALECTS[name], answer)) == [ToolCall("f", F, "abc123XYZ")]
        # One that no template would take is left for the agent to replace.
        assert calls_in(read(DIALECTS[name], answer.replace("XYZ", ""))) == [ToolCall("f", F)]


def test_json_without_marks_is_a_call_only_if_it_may_be() -> None:
    hermes = DIALECTS["hermes"]
    assert read(hermes, CALL, bare_calls=False) == [TextPiece(CALL)]
    assert read(hermes, CALL, tools={}) == [TextPiece(CALL)]
    assert read(DIALECTS["llama3"], CALL, tools={}) == [TextPiece(CALL)]
    assert calls_in(read(DIALECTS["lfm2"], CALL)) == [ToolCall("f", F)]


def test_nothing_of_it_is_shown_before_it_is_clear() -> None:
    parser = StreamParser(DIALECTS["hermes"], TOOLS, thinking=THINK)
    assert [parser.feed(character) for character in CALL] == [[]] * len(CALL)
    assert isinstance(parser.finish()[-1], CallDone)
    parser = StreamParser(DIALECTS["hermes"], TOOLS, thinking=THINK)
    shown = [parser.feed(character) for character in '{"bed": 1}']
    at = next(index for index, pieces in enumerate(shown) if pieces)
    assert at <= len('{"bed": ')  # no later than at the value of the first key
    assert not any(isinstance(piece, CallBroken) for pieces in shown for piece in pieces)
