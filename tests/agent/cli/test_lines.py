"""Events as lines, and the question whether a tool may run: what `sprig ask` and the plain chat show a person."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent import events as e
from agent.approval.policy import Answer, ApprovalRequest, Policy, Rule, always_rule
from agent.cli.lines import EventLines, ask_in_lines, unfinished
from agent.messages import ToolCall, ToolSpec
from agent.tools.builtin.changes import Found, previewed
from agent.tools.define import Tool, tool

CALL = ToolCall("press", {"button": "red\x1b[2J"}, "1")


@pytest.fixture
def written() -> list[str]:
    return []


@pytest.fixture
def lines(written: list[str]) -> EventLines:
    return EventLines(written.append, lambda text: written.append(f"{text}\n"))


def test_the_answer_comes_as_it_is_written_and_the_rest_on_lines_of_its_own(lines: EventLines, written: list[str]) -> None:
    for event in (
        e.Text("Let me "), e.Text("see\x1b[1m."), e.Thought("hm"), e.CallForming(0, "press"), e.CallReady(CALL),
        e.ToolProgress(CALL, "half"), e.ToolDone(CALL, True, "\n".join(map(str, range(20))), seconds=1.25),
        e.ToolDone(CALL, False, "no\x9b", seconds=0.1), e.CallRefused(CALL, "denied"), e.Compacted("old results", 9, 5),
        e.Problem("lost"), e.Text("Done.\n"), e.Problem("again"), e.ToolsChanged(new=("house__lock",)),
    ):  # fmt: skip
        lines.show(event)
    assert "".join(written) == (
        "Let me see␛[1m.\nTool press. button: red␛[2J\nTool press: half\nTool press is done after 1.2 seconds:\n"
        "0\n1\n2\n3\n4\n5\n6\n7\n(12 more lines)\nTool press failed after 0.1 seconds:\nno<U+009B>\n"
        "Tool press was not run: denied\nThe context was full: old results (9 tokens to 5).\nsprig: lost\nDone.\nsprig: again\n"
        "sprig: the tools of MCP servers are others now: new house__lock\n"
    )


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (e.ToolsChanged(new=("a", "b"), gone=("c",)), "new a, b; gone c"),
        (e.ToolsChanged(changed=tuple("abcdefg")), "changed a, b, c, d, e and 2 more"),
    ],
)
def test_tools_that_changed_are_one_line_however_many_they_are(changed: e.ToolsChanged, text: str) -> None:
    assert changed.text == f"the tools of MCP servers are others now: {text}"


def test_the_answer_can_be_left_out(written: list[str]) -> None:
    lines = EventLines(None, written.append)
    lines.show(e.Text("Hello"))
    lines.end_line()
    lines.show(e.Problem("lost"))
    assert written == ["sprig: lost"]


def test_reading_a_long_prompt_is_told_when_it_takes_long(
    lines: EventLines, written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("agent.cli.lines.time.monotonic", lambda: now)
    lines.begin()
    lines.show(e.Prefill(10, 100, 0))
    now += 3.5
    lines.show(e.Prefill(20, 100, 0))
    lines.show(e.Prefill(30, 100, 0))
    now += 3.5
    lines.show(e.Prefill(100, 100, 0))
    assert written == ["Reading the conversation: 20 of 100 tokens.\n"]


def test_an_answer_that_is_not_whole_says_why() -> None:
    assert unfinished(e.Result("", "done")) == ""
    assert unfinished(e.Result("", "error", error="no memory")) == "no memory"
    assert "--rounds" in unfinished(e.Result("", "rounds"))


@tool(approval="ask")
def press(button: str) -> str:
    return "pressed"


RED = Rule("allow", "press", "*", '{"button": "red"}', exact=True)


def request(of: Tool = press, call: ToolCall = CALL) -> ApprovalRequest:
    return ApprovalRequest(of, call, Policy().decide(of, call), always_rule(of, call))


def answers(*replies: str) -> Callable[[str], str | None]:
    waiting = [*replies]
    return lambda prompt: waiting.pop(0) if waiting else None


@pytest.mark.parametrize(
    ("replies", "answer", "rule"),
    [
        (["y"], Answer.yes(), None),
        (["1\n"], Answer.yes(), None),
        (["YES"], Answer.yes(), None),
        (["s"], Answer.always_yes(), None),
        (["2"], Answer.always_yes(), None),
        (["a"], Answer.yes(), RED),
        (["3"], Answer.yes(), RED),
        (["n"], Answer.no(), None),
        (["4"], Answer.no(), None),
        ([""], Answer.no(), None),
        (["w", "y"], Answer.no("y"), None),
        (["5", " the other one "], Answer.no("the other one"), None),
        (["not in this house"], Answer.no("not in this house"), None),
    ],
)
def test_the_keys_of_the_chat_answer(replies: list[str], answer: Answer, rule: Rule | None, written: list[str]) -> None:
    plain = ToolCall("press", {"button": "red"}, "1")
    assert ask_in_lines(request(call=plain), written.append, answers(*replies)) == (answer, rule)
    assert "button: red" in written[0]


def test_what_a_model_wants_to_run_is_shown_safely_and_its_risks_are_named(written: list[str]) -> None:
    assert ask_in_lines(request(), written.append, answers("y")) == (Answer.yes(), None)
    assert "button: red␛[2J" in written[0]
    assert written[1].startswith("Look at this: ␛ (")
    assert "\x1b" not in "".join(written)


def test_the_end_of_the_input_is_no_answer(written: list[str]) -> None:
    assert ask_in_lines(request(), written.append, answers()) is None
    assert ask_in_lines(request(), written.append, answers("w")) is None


def test_always_is_offered_only_where_a_rule_would_change_something(written: list[str]) -> None:
    prompts: list[str] = []
    replies = answers("a", "y")

    def read(prompt: str) -> str | None:
        prompts.append(prompt)
        return replies(prompt)

    bare = Tool.from_spec(press.spec, lambda arguments, context: "")
    bare.unconfined = "nothing confines it"
    decision = Policy((Rule("allow", "press"),)).decide(bare, CALL)
    asked = ApprovalRequest(bare, CALL, decision, always_rule(bare, CALL))
    assert ask_in_lines(asked, written.append, read) == (Answer.yes(), None)
    assert "No rule can cover this call." in written
    assert all(" a: " not in prompt for prompt in prompts)


def rewriting(before: str, after: str) -> ApprovalRequest:
    of = Tool(ToolSpec("write_file"), lambda: "", subjects={"path": "path"}, approval="ask")
    call = ToolCall("write_file", {"content": after, "path": "a\x1b.txt"}, "1")
    found = Found(len(before), before.encode(), "state")
    return ApprovalRequest(of, call, Policy().decide(of, call), always_rule(of, call), previewed("a", found, after))


def test_a_change_is_shown_before_the_yes_and_all_of_a_long_one_on_wish(written: list[str]) -> None:
    assert ask_in_lines(rewriting("one\ntwo\n", "one\n\x1b[2Jthree\n"), written.append, answers("y")) == (Answer.yes(), None)
    said = "\n".join(written)
    assert "write_file: a␛.txt\nreplaces 1 line with 1\n@@ -1,2 +1,2 @@\n one\n-two\n+␛[2Jthree\n" in said
    assert "content:" not in said, "nothing is said twice"
    written.clear()
    asked = rewriting("", "".join(f"line {i}\n" for i in range(500)))
    assert ask_in_lines(asked, written.append, answers("y")) == (Answer.yes(), None)
    assert "[... 441 lines of the change are left out ...]" in "\n".join(written)
    assert "+line 499" in "\n".join(written)
    assert "+line 250" not in "\n".join(written)
    assert ask_in_lines(asked, written.append, answers("d", "n")) == (Answer.no(), None)
    assert "+line 250" in "\n".join(written)
