"""Whose words were read, as the messages alone tell it; and which rules hold once they were others'."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.approval.policy import Policy, Rule
from agent.approval.trust import read_from_others, sourced
from agent.messages import Message, ToolCall, ToolSpec
from agent.tools.define import Tool

OWN = Message("user", "hello")
SERVER = Tool.from_spec(ToolSpec("srv__do"), lambda arguments, context: "x")


def result(name: str, untrusted: bool = True) -> Message:
    return Message("".join("tool"), "hello", call_id="abcdefgh1", name=name, untrusted=untrusted)  # a role as a file gives it


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], ""),
        ([OWN, result("clock", untrusted=False)], ""),
        ([OWN, result("inbox"), OWN], "what inbox gave"),
        ([result("inbox"), result("page"), result("clock", untrusted=False)], "what page gave"),
        ([result("a\x1b" + "b" * 90)], f"what a␛{'b' * 62} gave"),
        ([result("")], "what a tool gave"),
        ([result("inbox"), replace(OWN, untrusted=True)], "what others wrote"),
    ],
)
def test_what_was_read_last_of_others_is_said_in_words(messages: list[Message], words: str) -> None:
    assert read_from_others(messages) == words


@pytest.mark.parametrize("said", [False, True])
def test_a_result_is_of_others_unless_its_tool_vouches_for_it(said: bool) -> None:
    for tool, untrusted in ((None, True), (SERVER, True), (replace(SERVER, untrusted=False), said)):
        read = sourced(result("x", untrusted=said), tool)
        assert (read, read.untrusted) == (result("x"), untrusted)


ONCE, LASTING = Rule("allow", "srv__do"), Rule("allow", "srv__do", even_after_untrusted=True)


@pytest.mark.parametrize(
    ("rules", "session", "action"),
    [
        ([ONCE], [], "ask"),
        ([], [ONCE], "ask"),
        ([LASTING], [], "allow"),
        ([], [LASTING], "allow"),
        ([ONCE], [LASTING], "allow"),
        ([LASTING, replace(ONCE, tool="srv__*")], [], "allow"),
        ([LASTING, replace(ONCE, action="ask")], [], "ask"),
        ([LASTING], [replace(ONCE, action="deny")], "deny"),
        ([ONCE, replace(LASTING, argument="a", pattern="1")], [], "allow"),
        ([ONCE, replace(LASTING, argument="a", pattern="2")], [], "ask"),
        ([replace(LASTING, argument="a", pattern="1"), Rule("ask", "srv__*")], [], "allow"),
        ([LASTING, Rule("ask", "srv__do", "a", "1"), Rule("allow", "srv__do", "a", "1", exact=True)], [], "ask"),
    ],
)
def test_once_others_were_read_only_rules_hold_that_say_so(rules: list[Rule], session: list[Rule], action: str) -> None:
    call = ToolCall("srv__do", {"a": "1"})
    assert Policy(rules).decide(SERVER, call, session, untrusted="a page").action == action
    assert Policy(rules).decide(replace(SERVER, acts=False), call, session, untrusted="a page").action in ("allow", action)
