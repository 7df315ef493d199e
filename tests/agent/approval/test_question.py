"""The question in words: its answers, what it is about, why it is asked, and as much of a change as there is room for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.approval.offers import offer
from agent.approval.policy import ApprovalRequest, Policy, Rule, always_rule
from agent.approval.question import KEYS, asked_about, choices, diff_lines, middle_cut, reasons, title
from agent.messages import ToolCall, ToolSpec
from agent.tools.builtin.catalogue import builtin
from agent.tools.define import Tool
from agent.tools.preview import Preview
from tests.fixtures.generated import runs

TOOLS = {tool.name: tool for tool in builtin(root=Path("/usr"), home=Path("/usr"))}
RUN = replace(TOOLS["run_command"], unconfined="")
SERVER = Tool.from_spec(ToolSpec("srv__do__it"), lambda arguments, context: "x")


def request(tool: Tool, policy: Policy | None = None, **arguments: Any) -> ApprovalRequest:
    call = ToolCall(tool.name, arguments)
    return ApprovalRequest(tool, call, (policy or Policy()).decide(tool, call), always_rule(tool, call))


def possible(asked: ApprovalRequest) -> set[str]:
    return {choice.name for choice in choices(asked, offer(asked)) if choice.possible}


def test_each_answer_has_its_number_and_its_letter() -> None:
    found = choices(request(RUN, command="ls"), None)
    assert [choice.keys for choice in found] == [("1", "y"), ("2", "s"), ("3", "a"), ("4", "n"), ("5", "w")]
    assert {key for choice in found for key in choice.keys} == set(KEYS)
    assert found[1].words == "this session: this very command"
    anything = replace(request(RUN, command="ls"), always=Rule("allow", "run_command"))
    assert choices(anything, None)[1].words == "this session: any arguments"


ALLOW = Policy([Rule("allow", "run_command")])
NO_RULE = {"once", "no", "word"}


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (request(RUN, command="ls"), NO_RULE | {"session", "always"}),
        (request(RUN, command="ls | wc"), NO_RULE | {"session"}),  # no rule is kept for a shell's line
        (request(replace(RUN, unconfined="no walls"), ALLOW, command="ls"), NO_RULE),  # another rule would change nothing
        (request(replace(RUN, doubt=lambda: "not now"), ALLOW, command="ls"), NO_RULE),
        (request(replace(RUN, unconfined="no walls"), command="ls"), NO_RULE | {"session", "always"}),
        (replace(request(RUN, command="ls"), always=Rule("allow", "run_command", "command", "cat", exact=True)), NO_RULE),
    ],
)
def test_an_answer_that_would_do_nothing_is_not_possible(asked: ApprovalRequest, names: set[str]) -> None:
    assert possible(asked) == names


def test_a_server_s_tool_is_said_to_be_one() -> None:
    assert title(request(RUN, command="ls")) == "May this run?"
    assert title(request(SERVER)) == "May this run? It is of the MCP server srv"


def test_what_a_preview_shows_is_not_told_twice() -> None:
    asked = request(TOOLS["write_file"], path="a.txt", content="one\ntwo")
    assert asked_about(asked) == asked.decision.summary == "write_file: a.txt\n  content: one\n    two"
    asked = replace(asked, preview=Preview("writes\x1b 2 lines"))
    assert asked_about(asked) == "write_file: a.txt\nwrites␛ 2 lines"


def test_the_reasons_are_a_line_each_and_none_comes_twice() -> None:
    asked = request(RUN, command="ls")
    assert reasons(asked) == ["run_command is asked for each time"]
    assert reasons(replace(asked, tool=replace(RUN, unconfined="no\x1bwalls"))) == [*reasons(asked), "no␛walls"]
    assert reasons(request(replace(RUN, unconfined="no walls"), ALLOW, command="ls")) == ["no walls"]


@settings(max_examples=runs(200), derandomize=True, deadline=None, database=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_what_has_no_room_is_left_out_in_the_middle(count: int, most: int) -> None:
    start, end = middle_cut(count, most)
    kept = [*range(count)[:start], *range(count)[end:]]
    assert len(kept) == min(count, most)
    if count > most:
        before, after = start, count - end
        assert before + after == most
        assert abs(before - 2 * after) <= 2, "two thirds stand before the gap"


def test_a_change_is_shown_without_its_heads_and_says_what_is_missing() -> None:
    assert diff_lines("") == []
    assert diff_lines("--- a\n+++ a\n@@ -1 +1 @@\n-x\n+y\x1b\n\n") == ["@@ -1 +1 @@", "-x", "+y␛", ""]
    lines = [f"+{n}" for n in range(9)]
    diff = "\n".join(["--- a", "+++ a", *lines]) + "\n"
    assert diff_lines(diff) == diff_lines(diff, 9) == lines
    assert diff_lines(diff, 6) == [*lines[:4], "[... 3 lines of the change are left out ...]", *lines[7:]]
    assert diff_lines(diff, 0) == ["[... 9 lines of the change are left out ...]"]
