"""Rules against each other, rules in a file, what is kept after a question, and what a call is shown as."""

from __future__ import annotations

import itertools
import json
import logging
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest

from agent.approval.policy import Answer, ApprovalRequest, Gate, Policy, PolicyError, Rule, always_rule, describe
from agent.messages import ToolCall, ToolSpec
from agent.tools.builtin.catalogue import builtin
from agent.tools.define import Tool
from agent.tools.preview import Preview
from agent.tools.result import ToolError

TOOLS = {tool.name: tool for tool in builtin(root=Path("/usr"), home=Path("/usr"))}
RUN = replace(TOOLS["run_command"], unconfined="")
LS = ToolCall("run_command", {"command": "ls -l a"})


def server(**more: Any) -> Tool:
    """A server's tool, whose name is equal to that in a rule and another object."""
    return replace(Tool.from_spec(ToolSpec("".join(["srv", "__do"])), lambda arguments, context: "x"), **more)


# From the most special rule to the least.
SPECIAL = [
    Rule("allow", "run_command", "command", "ls -l a", exact=True),
    Rule("allow", "run_*", "command", "ls -l a", exact=True),
    Rule("allow", "run_command", "command", "ls -l a"),
    Rule("allow", "run_command", "command", "ls -l"),
    Rule("allow", "run_*", "command", "ls -l"),
    Rule("allow", "run_command", "command", "ls*"),
    Rule("allow", "run_*", "command", "*"),
    Rule("allow", "run_command"),
    Rule("allow", "run_?ommand"),
]


@pytest.mark.parametrize("actions", list(itertools.permutations(("allow", "ask"))))
def test_the_more_special_rule_speaks_in_any_order(actions: Any) -> None:
    for special, broad in itertools.combinations([rule for rule in SPECIAL if rule.pattern != "ls*"], 2):
        rules = [replace(special, action=actions[0]), replace(broad, action=actions[1])]
        for order in (rules, rules[::-1]):
            decision = Policy(order).decide(RUN, LS)
            assert decision.action == actions[0], (special, broad)
            about = f" with command {special.pattern!r}" if special.argument else ""
            assert decision.reason == f"a rule says {actions[0]} for {special.tool}{about}"


def test_wildcards_make_a_pattern_no_more_special() -> None:
    weights = [Rule("ask", "x", "a", pattern).weight for pattern in ("ab", "a*b", "*a?b*")]
    assert len(set(weights)) == 1
    assert [rule.weight for rule in SPECIAL] == sorted((rule.weight for rule in SPECIAL), reverse=True)


def test_between_equals_the_stricter_wins_and_a_deny_always() -> None:
    for first, second in itertools.permutations(("deny", "ask", "allow"), 2):
        rules = [Rule(first, "run_command"), Rule(second, "run_command")]  # type: ignore[arg-type]
        assert Policy(rules).decide(RUN, LS).action == min(first, second, key=("deny", "ask", "allow").index)
    for rule in SPECIAL:
        assert Policy([Rule("deny"), rule]).decide(RUN, LS).action == "deny"
        assert Policy([Rule("deny")]).decide(RUN, LS, [rule]).action == "deny"


def test_a_tool_that_is_switched_off_wants_a_rule_with_its_name() -> None:
    off = server(approval="deny")
    call = ToolCall("srv__do", {})
    assert (Policy().decide(off, call).action, Policy().decide(off, call).reason) == ("deny", "srv__do is switched off")
    for rules, action in (
        ([Rule("allow")], "deny"),
        ([Rule("allow", "srv__*")], "deny"),
        ([Rule("ask", "srv__do")], "deny"),
        ([Rule("allow", "srv__do")], "allow"),
        ([Rule("allow", "srv__do", "*", "{}")], "allow"),
        ([Rule("allow", "srv__do"), Rule("ask", "srv__do")], "ask"),
        ([Rule("allow", "srv__do"), Rule("deny", "srv__do")], "deny"),
    ):
        assert Policy(rules).decide(off, call).action == action, rules


def test_an_argument_that_is_left_out_avoids_no_deny() -> None:
    for action in ("allow", "ask", "deny"):
        for pattern in ("", "*", "**", "x"):
            rule = Rule(action, "srv__do", "a", pattern)  # type: ignore[arg-type]
            assert rule.matches(server(), {"b": 1}) == (action == "deny" and pattern != "x")


def test_values_that_are_no_texts_are_compared_as_json() -> None:
    assert Rule("deny", "srv__do", "a", '{"b": "é", "c": [1, true]}', exact=True).matches(
        server(), {"a": {"c": [1, True], "b": "é"}}
    )
    assert Rule("allow", "srv__do", "*", '{"a": "é", "b": 1}').matches(server(), {"b": 1, "a": "é"})
    assert not Rule("allow", "srv__do", "*", '{"a": 1}').matches(server(), {"a": "1"})


def test_what_rules_cannot_be_applied_to_is_asked_for() -> None:
    for rule in (Rule("allow", "srv__do", "a", "x"), Rule("deny", "srv__do", "a", "x")):
        decision = Policy([rule]).decide(server(), ToolCall("srv__do", {"a": object()}))
        assert (decision.action, decision.reason) == ("ask", "the rules cannot be applied to this call of srv__do")


@pytest.mark.parametrize("tool", ["", None, 5])
def test_a_rule_names_a_tool(tool: Any) -> None:
    with pytest.raises(PolicyError, match="tool's name"):
        Rule("allow", tool)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"action": []}, "use allow, ask or deny"),
        ({"argument": 5}, "no text"),
        ({"argument": "a", "pattern": 5}, "no text"),
        ({"argument": "a", "pattern": None}, "no text"),
        ({"exact": "false"}, "true or false"),
        ({"even-after-untrusted": "false"}, "true or false"),
        ({"even-after-untrusted": 1}, "true or false"),
    ],
)
def test_a_rule_of_the_wrong_kind_is_refused_and_never_read_as_true(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        Rule.from_dict({"action": "allow", "tool": "x", **wrong})


@pytest.mark.parametrize(
    ("rule", "data"),
    [
        (Rule("ask"), {"action": "ask", "tool": "*"}),
        (Rule("deny", "x", "a"), {"action": "deny", "tool": "x", "argument": "a", "pattern": ""}),
        (
            Rule("allow", "x", "a", "b", exact=True, even_after_untrusted=True),
            {"action": "allow", "tool": "x", "argument": "a", "pattern": "b", "exact": True, "even-after-untrusted": True},
        ),
    ],
)
def test_a_rule_in_a_file_says_only_what_is_not_usual(rule: Rule, data: dict[str, Any]) -> None:
    assert rule.to_dict() == data
    assert Rule.from_dict(data) == rule
    assert Policy.from_dict({"rules": [data]}) == Policy((rule,))
    assert Policy((rule,)).to_dict() == {"rules": [data], "unconfined": False}


@pytest.mark.parametrize("action", ["allow", "ask", "deny"])
@pytest.mark.parametrize("rule", SPECIAL)
def test_a_rule_that_was_read_from_a_file_acts_like_that_of_a_script(rule: Rule, action: Any) -> None:
    written = Policy([replace(rule, action=action)])
    read = Policy.from_dict(json.loads(json.dumps(written.to_dict())))
    for line in ("ls -l a", "ls -l b", "ls -l a | wc", "cat a"):
        call = ToolCall("".join(["run_", "command"]), {"command": line})
        for session in ([], [replace(always_rule(RUN, call), tool=call.name)]):
            asked, verdicts = [], []
            for policy in (written, read):
                gate = Gate(policy, lambda request, asked=asked: asked.append(request.decision) or True, [*session])
                verdicts.append((gate.check(RUN, call), policy.decide(RUN, call, session, untrusted="a page")))
            assert verdicts[0] == verdicts[1]
            assert len(set(asked)) <= 1
            assert verdicts[0][0].asked == bool(asked)


@pytest.mark.parametrize(
    ("rule", "action"),
    [
        (Rule("allow", "run_command", "command", "ls | wc", exact=True), "allow"),
        (Rule("allow", "run_command", "command", "ls | w", exact=True), "ask"),
        (Rule("allow", "run_command", "command", "ls | wc -l", exact=True), "ask"),
        (Rule("allow", "run_command", "command", "ls | wc"), "ask"),
        (Rule("ask", "run_command", "command", "ls | wc", exact=True), "ask"),
        (Rule("deny", "run_command", "command", "ls | wc", exact=True), "deny"),
        (Rule("allow", "a_command", "command", "ls | wc", exact=True), "ask"),
        (Rule("allow", "z_command", "command", "ls | wc", exact=True), "ask"),
        (Rule("allow", "*", "command", "ls | wc", exact=True), "ask"),
    ],
)
def test_a_line_for_a_shell_runs_only_where_a_person_saw_that_very_line(rule: Rule, action: str) -> None:
    call = ToolCall("run_command", {"command": "".join(["ls", " | wc"])})
    assert Policy([Rule("allow", "run_command")]).decide(RUN, call, [rule]).action == action


# What is answered, and kept.


def test_what_was_decided_and_asked_cannot_be_changed() -> None:
    policy = Policy(SPECIAL)
    decision = policy.decide(RUN, LS)
    request = ApprovalRequest(RUN, LS, decision, always_rule(RUN, LS))
    for made in (policy, SPECIAL[0], decision, request, Answer.yes(), Gate().check(RUN, LS)):
        for one in fields(made):
            with pytest.raises(FrozenInstanceError):
                setattr(made, one.name, True)


@pytest.mark.parametrize(
    ("rules", "untrusted", "usual"), [([], "", True), ([Rule("ask")], "", False), ([Rule("allow")], "a page", False)]
)
def test_it_is_the_usual_question_where_nothing_speaks_of_the_tool(rules: list[Rule], untrusted: str, usual: bool) -> None:
    decision = Policy(rules).decide(RUN, LS, untrusted=untrusted)
    assert (decision.action, decision.usual) == ("ask", usual)
    assert not any(replace(decision, action=other).usual for other in ("allow", "deny"))
    verdict = Gate(Policy(rules)).check(RUN, LS, untrusted=untrusted)
    why = "" if usual else f" ({decision.reason})"
    assert verdict.message == f"not allowed: run_command needs approval{why}, and nobody is there to give it"


def test_what_others_wrote_matters_only_to_what_acts() -> None:
    policy = Policy([Rule("allow")])
    for acts, untrusted, action in ((True, "a page", "ask"), (False, "a page", "allow"), (True, "", "allow")):
        assert policy.decide(server(acts=acts), ToolCall("srv__do", {}), untrusted=untrusted).action == action


def test_a_refusal_names_the_rule_that_refused() -> None:
    for rule, why in ((Rule("deny"), "a rule says deny for *"), (Rule("deny", "run_command", "command", "ls"), "'ls'")):
        message = Gate(Policy([rule]), lambda request: True).check(RUN, LS).message
        assert message.startswith("not allowed: a rule says deny for ")
        assert message.endswith(why)


def test_a_doubt_overrules_what_allows_and_nothing_else() -> None:
    doubtful = server(doubt=lambda: "it has changed")
    for rules, found in (
        ([Rule("allow")], ("ask", "it has changed")),
        ([Rule("deny")], ("deny", "a rule says deny for *")),
        ([], ("ask", "srv__do is asked for each time")),
    ):
        decision = Policy(rules).decide(doubtful, ToolCall("srv__do", {}))
        assert (decision.action, decision.reason) == found


@pytest.mark.parametrize("untrusted", ["", "a page"])
def test_rules_that_are_made_at_a_question_go_on_and_no_others_do(untrusted: str) -> None:
    old, new = Rule("ask", "x"), [Rule("allow", "srv__*"), Rule("deny", "y"), Rule("ask", "z")]
    for before, after, kept in (
        ([old], [old, *new], [Rule("allow", "srv__*", even_after_untrusted=True)]),
        ([old], [old], []),
        ([old], new, []),
        ([], [*new, new[0]], [Rule("allow", "srv__*", even_after_untrusted=True)] * 2),
    ):
        gate = Gate(Policy(before))

        def person(request: ApprovalRequest, gate: Gate = gate, after: list[Rule] = after) -> Answer:
            gate.policy = Policy(after)
            return Answer.yes()

        gate.approver = person
        assert gate.check(server(), ToolCall("srv__do", {}), untrusted=untrusted).asked
        assert gate.session == (kept if untrusted else [])


@pytest.mark.parametrize("untrusted", ["", "a page"])
def test_always_is_kept_with_what_was_known(untrusted: str) -> None:
    gate = Gate(Policy(), lambda request: Answer.always_yes())
    assert gate.check(RUN, LS, untrusted=untrusted).asked
    assert gate.session == [Rule("allow", "run_command", "command", "ls -l a", exact=True, even_after_untrusted=bool(untrusted))]
    gate = Gate(Policy(), lambda request: Answer.yes())
    assert gate.check(RUN, LS, untrusted=untrusted).asked
    assert gate.session == []


def test_a_preview_is_made_before_the_question_and_what_cannot_be_done_is_none() -> None:
    asked: list[ApprovalRequest] = []

    def person(request: ApprovalRequest) -> bool:
        asked.append(request)
        return True

    def refuse(arguments: Any) -> Preview:
        raise ToolError("there is no such file")

    call = ToolCall("srv__do", {})
    verdict = Gate(Policy(), person).check(server(preview=refuse), call)
    assert (verdict.allowed, verdict.asked, verdict.message, asked) == (False, False, "there is no such file", [])
    shown = Preview("writes it", state="s1")
    verdict = Gate(Policy(), person).check(server(preview=lambda arguments: shown), call)
    assert (verdict.allowed, verdict.asked, verdict.shown, asked[0].preview) == (True, True, "s1", shown)
    verdict = Gate(Policy(), person).check(server(preview=lambda arguments: None), call)
    assert (verdict.allowed, verdict.shown, asked[1].preview) == (True, "", None)


@pytest.mark.parametrize(
    ("policy", "answer", "line"),
    [
        (Policy(), True, "approval of srv__do: allowed by a person"),
        (Policy(), False, "approval of srv__do: refused by a person"),
        (Policy([Rule("allow")]), False, "approval of srv__do: allowed by the rules"),
        (Policy([Rule("deny")]), True, "approval of srv__do: refused by the rules"),
    ],
)
def test_the_log_says_who_allowed_what(policy: Policy, answer: bool, line: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "agent.approval.policy"):
        Gate(policy, lambda request: answer).check(server(), ToolCall("srv__do", {}))
    assert caplog.messages == [line]


def test_always_is_about_the_first_command_or_address_that_can_be_read() -> None:
    pages = server(subjects={"path": "path", "a": "url", "b": "url"})

    def rule(**arguments: Any) -> Rule:
        return always_rule(pages, ToolCall("srv__do", arguments))

    assert rule(a="https://A.org", b="x") == Rule("allow", "srv__do", "a", "https://a.org/", exact=True)
    assert rule(a="ftp://x", b=" http://b.org/y ") == Rule("allow", "srv__do", "b", "http://b.org/y", exact=True)
    assert rule(a=5, path="x") == Rule("allow", "srv__do", "*", '{"a": 5, "path": "x"}', exact=True)
    assert rule(a="é", path="x") == Rule("allow", "srv__do", "*", '{"a": "é", "path": "x"}', exact=True)


# What is shown.

SHOWN = server(subjects={"command": "command", "url": "url", "path": "path"})
UNSEEN, ALONG, LETTERS, OPEN, AWAY = (
    "stands for what cannot be seen", "sends this along", "letters that may look like others", "not encrypted",
    "perhaps outside the root",
)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "summary", "risks"),
    [
        ({}, "srv__do", []),
        ({"url": "https://a.org/x"}, "srv__do: https://a.org/x", []),
        ({"url": "https://a.org/?x"}, "srv__do: https://a.org/?x", [("?x", ALONG)]),
        ({"url": "https://xn--a.org/"}, "srv__do: https://xn--a.org/", [("https://xn--a.org/", LETTERS)]),
        ({"url": "https://é.org/"}, "srv__do: https://é.org/", [("https://é.org/", LETTERS)]),
        ({"url": "http://a.org/"}, "srv__do: http://a.org/", [("http://", OPEN)]),
        ({"url": "x"}, "srv__do: x", [("x", OPEN)]),
        ({"path": "/a"}, "srv__do: /a", [("/a", AWAY)]),
        ({"path": "~/a"}, "srv__do: ~/a", [("~/a", AWAY)]),
        ({"path": "a/../b"}, "srv__do: a/../b", [("a/../b", AWAY)]),
        ({"path": "a..b/~"}, "srv__do: a..b/~", []),
        ({"path": "ñ/中"}, "srv__do: ñ/中", []),
        ({"command": "cat ñ\t中"}, "srv__do: cat ñ␉中", []),
        ({"command": "a\x1b b"}, "srv__do: a␛ b", [("␛", UNSEEN)]),
        ({"text": "/a ../b\n\tc\x7f", "path": "d"}, "srv__do\n  text: /a ../b\n    \tc␡\n  path: d", [("␡", UNSEEN)]),
        ({"path": "a", "command": "rm\u202e b"}, "srv__do: a\n  command: rm<U+202E> b", [("<U+202E>", UNSEEN)]),
        ({"path": "a", "command": "rm b"}, "srv__do: a\n  command: rm b", [("rm", "deletes files")]),
        ({"n": [1, "é", None], "ö\x1b": True}, 'srv__do\n  n: [1, "é", null]\n  ö␛: true', []),
    ],
)
def test_a_call_is_shown_whole_with_its_risks_where_they_stand(
    arguments: Any, summary: str, risks: list[tuple[str, str]]
) -> None:
    shown, places = describe(SHOWN, ToolCall("srv__do", arguments))
    assert shown == summary
    assert [(shown[start:end], why) for start, end, why in places] == risks
