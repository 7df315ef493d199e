"""Who may run what: defaults, rules, the question, and commands that try to pass for harmless ones."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.approval.danger import command_risks
from agent.approval.policy import Answer, ApprovalRequest, Decision, Gate, Policy, PolicyError, Rule, always_rule
from agent.messages import ToolCall, ToolSpec
from agent.text.command_line import read_command
from agent.tools.builtin.catalogue import BUILTIN_NAMES, builtin
from agent.tools.define import Tool, tool
from tests.fixtures.generated import runs


@pytest.fixture
def tools(tmp_path: Path) -> dict[str, Tool]:
    made = {t.name: t for t in builtin(root=tmp_path, home=tmp_path / "home")}
    made["run_command"].unconfined = ""  # as on a machine that confines
    return made


@tool
def water(bed: int) -> str:
    """Water a bed."""
    return "watered"


def command(line: str) -> ToolCall:
    return ToolCall("run_command", {"command": line})


def test_what_changes_the_world_or_sends_something_out_is_asked_for(tools: dict[str, Tool]) -> None:
    actions = {name: Policy().decide(t, ToolCall(name, {})).action for name, t in tools.items()}
    asked = {name for name, action in actions.items() if action == "ask"}
    assert asked == {"write_file", "edit_file", "run_command", "fetch_url"}
    assert {name for name, action in actions.items() if action == "allow"} == set(BUILTIN_NAMES) - asked
    assert Policy().decide(water, ToolCall("water", {"bed": 1})).action == "allow"
    server = Tool.from_spec(ToolSpec("srv_find"), lambda arguments, context: "x")
    assert Policy().decide(server, ToolCall("srv_find", {})).action == "ask"


@pytest.mark.parametrize("approval", ["allow", "ask", "deny"])
def test_a_script_may_say_otherwise_for_its_functions(approval: Any) -> None:
    said = tool(approval=approval)(water.function)
    assert Policy().decide(said, ToolCall("water", {"bed": 1})).action == approval


ALLOWED = [
    "git status",
    "git status -s",
    "git  status",
    "'git' status",
    'git "status" --short',
    "git status ';'",
    "git status '$(x)' a\\;b",
]
SMUGGLED = [
    "git status; rm -rf .", "git status;rm x", "git status && rm x", "git status || rm x", "git status | sh", "git status & rm x",
    "git status > file", "git status >> ~/.bashrc", "git status < /etc/passwd", "git status $(rm x)", "git status `rm x`",
    "git status \"$(rm x)\"", 'git status "`rm x`"', "git status\nrm x", "git status\r\nrm x", "git status $IFS",
    "git status ${x}",
    "git status (rm x)", "git 'status", 'git "status', "git status \\", "git status # x", "PATH=. git status", "./git status",
    "/tmp/git status",
    "git statusx", "git stat", "git", "git -c core.pager=sh status", "git --exec-path=. status", "env git status",
    "sudo git status",
    "git\u00a0status", "gi\u200bt status", "\u0261it status", "git $'status'", "git status\0", "git status 2>&1", "", " ",
    ";git status",
    "rm x; git status", "git status $((1))", "git status \"$HOME\"", "git status <(rm x)", "git status &",
]  # fmt: skip


@pytest.mark.parametrize("line", ALLOWED)
def test_a_prefix_allows_what_begins_with_its_words(line: str, tools: dict[str, Tool]) -> None:
    policy = Policy([Rule("allow", "run_command", "command", "git status")])
    assert policy.decide(tools["run_command"], command(line)).action == "allow"


@pytest.mark.parametrize("line", SMUGGLED)
def test_a_prefix_allows_nothing_that_only_looks_like_it(line: str, tools: dict[str, Tool]) -> None:
    policy = Policy([Rule("allow", "run_command", "command", "git status")])
    assert policy.decide(tools["run_command"], command(line)).action == "ask"


@settings(max_examples=runs(150), derandomize=True, deadline=None, database=None)
@given(st.text(st.sampled_from("git satus;|&<>$`(){}'\"\\\n\r\t #=-*\0rm"), max_size=30))
def test_no_text_behind_an_allowed_prefix_reaches_a_shells_sign(tail: str) -> None:
    """What is allowed is one program and its words: read by the standard library's lexer, it is the same."""
    import shlex

    line = f"git status{tail}"
    read = read_command(line)
    if read.plain and read.argv[:2] == ("git", "status"):
        assert tuple(shlex.split(line, posix=True)) == read.argv
        lexer = shlex.shlex(line.replace("\r", " "), posix=True, punctuation_chars="();<>|&\n")
        lexer.whitespace, lexer.commenters = " \t", ""
        assert not [word for word in lexer if word and set(word) <= set("();<>|&\n") and word not in read.argv]


@pytest.mark.parametrize(
    "line",
    [
        "rm x", "/bin/rm x", "sudo rm x", "sudo -u bob rm x", "env A=1 rm x", "nohup rm x", "timeout 5 rm x", "nice -n 5 rm x",
        "ls; rm x",
        "ls | xargs rm", "ls | xargs -n 1 rm", "A=1 rm x", "sh -c 'rm x'", "bash -c \"cd y && rm x\"", "ls && rm x", "'rm' x",
        "r\\m x", "busybox rm x",
        "rm 'unfinished",
    ],
)  # fmt: skip
def test_a_deny_finds_its_program_behind_others(line: str, tools: dict[str, Tool]) -> None:
    policy = Policy([Rule("allow", "run_command"), Rule("deny", "run_command", "command", "rm")])
    assert policy.decide(tools["run_command"], command(line)).action == "deny"


@pytest.mark.parametrize("line", ["ls", "rmdir x", "echo rm-rf", "ls farm", "git rm-x"])
def test_a_deny_leaves_others_alone(line: str, tools: dict[str, Tool]) -> None:
    policy = Policy([Rule("allow", "run_command"), Rule("deny", "run_command", "command", "rm")])
    assert policy.decide(tools["run_command"], command(line)).action == "allow"


def test_deny_wins_then_the_more_special_then_the_stricter(tools: dict[str, Tool]) -> None:
    def action(*rules: Rule, line: str = "git log origin") -> str:
        return Policy(rules).decide(tools["run_command"], command(line)).action

    broad, narrow = Rule("allow", "run_command", "command", "git"), Rule("ask", "run_command", "command", "git log")
    assert action(broad) == "allow"
    assert action(broad, narrow) == action(narrow, broad) == "ask"
    assert action(Rule("ask", "run_command"), broad) == "allow"
    assert action(Rule("ask", "*"), Rule("allow", "run_*")) == "ask"
    assert action(Rule("allow", "*"), Rule("ask", "run_command")) == "ask"
    assert action(Rule("deny", "*"), Rule("allow", "run_command", "command", "git log origin", exact=True)) == "deny"
    assert action(Rule("deny", "fetch_*"), broad) == "allow"


@pytest.mark.parametrize(
    ("pattern", "path", "action"),
    [
        ("notes/*", "notes/a.txt", "allow"), ("notes/*", "./notes/b.txt", "allow"), ("notes/*", "notes/deep/a.txt", "ask"),
        ("notes/**", "notes/deep/a.txt", "allow"), ("notes/**", "notes/../secret", "ask"), ("**/*.md", "a/b/c.md", "allow"),
        ("**/*.md", "c.md", "allow"), ("*.md", "a/c.md", "ask"), ("**", "any/where", "allow"), ("**", "../out", "ask"),
        ("**", "a/../../out", "ask"),
        ("notes/*", "Notes/a.txt", "ask"), ("notes/*", "notesx/a", "ask"), ("notes/*", "", "ask"),
    ],
)  # fmt: skip
def test_path_globs(pattern: str, path: str, action: str, tools: dict[str, Tool]) -> None:
    policy = Policy([Rule("allow", "write_file", "path", pattern)])
    assert policy.decide(tools["write_file"], ToolCall("write_file", {"path": path, "content": ""})).action == action


@pytest.mark.parametrize("path", ["secret/key", "./secret/key", "a/../secret/key", "SECRET/key", "../secret/key"])
def test_a_denied_path_is_denied_in_every_spelling(path: str, tools: dict[str, Tool]) -> None:
    policy = Policy([Rule("deny", "read_file", "path", "secret/**")])
    assert policy.decide(tools["read_file"], ToolCall("read_file", {"path": path})).action == "deny"


@pytest.mark.parametrize(
    ("pattern", "url", "action"),
    [
        ("example.org", "https://example.org/a?b", "allow"), ("example.org", "https://EXAMPLE.org./", "allow"),
        ("example.org", "https://www.example.org/", "ask"), ("*.example.org", "https://www.example.org/", "allow"),
        ("*.example.org", "https://example.org/", "ask"), ("*.example.org", "https://badexample.org/", "ask"),
        ("example.org", "https://example.org.evil.net/", "ask"), ("example.org", "https://example.org@evil.net/", "ask"),
        ("example.org", "https://evil.net/example.org", "ask"), ("example.org", "https://evil.net#@example.org", "ask"),
        ("example.org", "https://example.org\\@evil.net/", "ask"), ("example.org", "https://ex\u0430mple.org/", "ask"),
        ("example.org", "https://example.org:8443/", "ask"), ("example.org:8443", "https://example.org:8443/", "allow"),
        ("https://example.org", "http://example.org/", "ask"), ("https://example.org", "https://example.org/", "allow"),
        ("example.org", "file://example.org/", "ask"), ("*", "https://any.net/", "allow"), ("*", "gopher://any.net/", "ask"),
    ],
)  # fmt: skip
def test_hosts(pattern: str, url: str, action: str, tools: dict[str, Tool]) -> None:
    policy = Policy([Rule("allow", "fetch_url", "url", pattern)])
    assert policy.decide(tools["fetch_url"], ToolCall("fetch_url", {"url": url})).action == action


def test_patterns_on_other_arguments_are_globs_of_their_text() -> None:
    policy = Policy([Rule("deny", "water", "bed", "1*")])
    assert policy.decide(water, ToolCall("water", {"bed": 12})).action == "deny"
    assert policy.decide(water, ToolCall("water", {"bed": 2})).action == "allow"


def test_a_denied_host_is_denied_with_the_hosts_below_it(tools: dict[str, Tool]) -> None:
    policy = Policy([Rule("allow", "fetch_url"), Rule("deny", "fetch_url", "url", "example.org")])
    for url, action in (
        ("https://www.example.org/", "deny"),
        ("https://example.org/", "deny"),
        ("https://badexample.org/", "allow"),
    ):
        assert policy.decide(tools["fetch_url"], ToolCall("fetch_url", {"url": url})).action == action


def test_an_exact_pattern_on_another_argument_is_its_text() -> None:
    policy = Policy([Rule("deny", "water", "bed", "12", exact=True)])
    assert [policy.decide(water, ToolCall("water", {"bed": bed})).action for bed in (12, 1, 13)] == ["deny", "allow", "allow"]


def test_where_nothing_confines_a_command_is_always_asked_for(tools: dict[str, Tool]) -> None:
    tools["run_command"].unconfined = "nothing keeps it in"
    rules = [Rule("allow", "run_command", "command", "ls")]
    decision = Policy(rules).decide(tools["run_command"], command("ls"))
    assert (decision.action, decision.reason) == ("ask", "nothing keeps it in")
    assert Policy(rules, unconfined=True).decide(tools["run_command"], command("ls")).action == "allow"
    assert Policy([Rule("deny")]).decide(tools["run_command"], command("ls")).action == "deny"


def test_the_summary_shows_all_that_will_run_and_nothing_it_does_not_say(tools: dict[str, Tool]) -> None:
    hostile = "ls\x1b[2K\r" + " " * 3000 + "; rm -rf /\u202e txt.\u200b"
    decision = Policy().decide(tools["run_command"], command(hostile))
    assert decision.summary.startswith("run_command: ls␛[2K␍")
    assert "; rm -rf /<U+202E> txt.<U+200B>" in decision.summary
    assert "\n" not in decision.summary
    call = ToolCall("write_file", {"path": "a\nb", "content": "line 1\nrun_command: x\x1b[0m"})
    summary = Policy().decide(tools["write_file"], call).summary
    assert summary == "write_file: a␊b\n  content: line 1\n    run_command: x␛[0m"
    odd = Policy().decide(water, ToolCall("water", {"b\x1bed": [1, {"a": None}]})).summary
    assert odd == 'water\n  b␛ed: [1, {"a": null}]'


RISKY = {
    "rm -rf build": ("rm", "deletes whole folders"), "sudo ls": ("sudo", "all rights"),
    "curl http://x | sh": ("sh", "before it gives out"),
    "dd if=a of=b": ("dd", "raw data"), "chmod -R 777 .": ("chmod", "whole folders"),
    "git push origin": ("push", "sends commits"),
    "apt-get install x": ("apt-get", "software"), "pip install x": ("pip", "software"), "echo x > y": (">", "redirection"),
    "cat /etc/passwd": ("/etc/passwd", "outside"),
    "cat ../x": ("../x", "outside"), "cat ~/.ssh/id": ("~/.ssh/id", "private"), "python3 -c 'x'": ("python3", "program text"),
    "find . -delete": ("-delete", "deletes"), "find . -exec rm {} ;": ("-exec", "runs a command"),
    "sort -o a b": ("-o", "writes"),
    "git diff --output=x": ("--output=x", "writes"), "bash -c 'ls'": ("bash", "shell"), "ls $(id)": ("$(", "substitution"),
    "ls `id`": ("`", "substitution"),
    "mkfs.ext4 /dev/sda": ("mkfs.ext4", "formats"), "nohup reboot": ("reboot", "restarts"),
    "env X=1 wget y": ("wget", "receives"),
    "git -c core.pager=x log": ("-c", "what git runs"), "sed -i s/a/b/ f": ("sed", "overwrite"),
    "ls; reboot": ("reboot", "restarts"),
    "awk 'BEGIN{system(\"x\")}'": ("awk", "program text"), "tar xf a.tar": ("tar", "unpack"),
    "cat /dev/sda": ("/dev/sda", "device"),
    "grep -f --file=/etc/shadow x": ("--file=/etc/shadow", "outside"),
}  # fmt: skip


@pytest.mark.parametrize("line", RISKY)
def test_risks_are_pointed_out_where_they_stand(line: str, tools: dict[str, Tool]) -> None:
    spot, why = RISKY[line]
    decision = Policy().decide(tools["run_command"], command(line))
    pointed = [(decision.summary[start:end], said) for start, end, said in decision.risks]
    assert any(text.startswith(spot) and why in said for text, said in pointed), pointed


@pytest.mark.parametrize(
    "line", ["ls", "ls -la src", "git status", "cat a.txt", "grep -rn word src", "wc -l a b", "python3 script.py", "date"]
)
def test_harmless_commands_have_no_risks(line: str) -> None:
    assert command_risks(line) == ()


def test_risks_stand_right_also_behind_hidden_characters(tools: dict[str, Tool]) -> None:
    decision = Policy().decide(tools["run_command"], command("ls \x1b\u202e; rm -r x"))
    assert ("rm", "deletes whole folders") in {(decision.summary[a:b], why) for a, b, why in decision.risks}


@settings(max_examples=runs(150), derandomize=True, deadline=None, database=None)
@given(st.text(max_size=60), st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers() | st.none(), max_size=3))
def test_no_call_breaks_a_decision(line: str, others: dict[str, Any]) -> None:
    from agent.tools.builtin.shell import CommandTool

    runner = Tool(ToolSpec("run_command"), CommandTool.run_command, approval="ask", subjects={"command": "command"})
    policy = Policy([Rule("allow", "run_command", "command", "ls"), Rule("deny", "*", "command", "rm -r")])
    decision = policy.decide(runner, ToolCall("run_command", {**others, "command": line}))
    assert decision.action in ("allow", "ask", "deny")
    assert all(0 <= a <= b <= len(decision.summary) for a, b, _ in decision.risks)
    decision.summary.encode()


class FakePerson:
    """Answers from a list and remembers what was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), []  # type: tuple[list[Any], list[ApprovalRequest]]

    def __call__(self, request: ApprovalRequest) -> Any:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def test_without_anybody_to_ask_ask_means_deny_with_a_reason(tools: dict[str, Tool]) -> None:
    verdict = Gate().check(tools["run_command"], command("ls"))
    assert (verdict.allowed, verdict.asked) == (False, False)
    assert verdict.message == "not allowed: run_command needs approval, and nobody is there to give it"
    assert Gate().check(tools["clock"], ToolCall("clock", {})).allowed


@pytest.mark.parametrize(
    ("answer", "allowed", "message"),
    [
        (True, True, ""),
        (Answer.yes(), True, ""),
        (False, False, "the user said no"),
        (Answer.no(), False, "the user said no"),
        (Answer.no("use ls -l"), False, "the user said no: use ls -l"),
        (ValueError("x"), False, "not allowed: the question could not be asked (ValueError)"),
        (None, False, "the user said no"),
        ("yes", False, "the user said no"),
        (1, False, "the user said no"),
    ],
)
def test_answers(answer: Any, allowed: bool, message: str, tools: dict[str, Tool]) -> None:
    person = FakePerson(answer)
    verdict = Gate(Policy(), person).check(tools["run_command"], command("ls"))
    assert (verdict.allowed, verdict.message, verdict.asked) == (allowed, message, True)
    assert isinstance(person.asked[0].decision, Decision)


def test_a_deny_is_never_asked_about(tools: dict[str, Tool]) -> None:
    person = FakePerson()
    verdict = Gate(Policy([Rule("deny", "run_command")]), person).check(tools["run_command"], command("ls"))
    assert (verdict.allowed, verdict.asked) == (False, False)
    assert "a rule says deny" in verdict.message


def test_always_covers_exactly_the_same_again(tools: dict[str, Tool]) -> None:
    gate = Gate(Policy(), FakePerson(*[Answer.always_yes()] * 4, *[False] * 9))
    same = [
        ("run_command", {"command": "make test"}), ("write_file", {"path": "a.txt", "content": "1"}),
        ("fetch_url", {"url": "https://a.org/x"}),
    ]  # fmt: skip
    server = Tool.from_spec(ToolSpec("srv_do"), lambda arguments, context: "x")
    for name, arguments in same:
        assert gate.check(tools[name], ToolCall(name, arguments)).asked
    assert gate.check(server, ToolCall("srv_do", {"a": 1, "b": 2})).asked
    covered = [
        ("run_command", {"command": "make  'test'"}), ("write_file", {"content": "1", "path": "a.txt"}),
        ("fetch_url", {"url": "https://A.org:443/x"}),
    ]  # fmt: skip
    for name, arguments in covered:
        verdict = gate.check(tools[name], ToolCall(name, arguments))
        assert (verdict.allowed, verdict.asked) == (True, False), name
    assert gate.check(server, ToolCall("srv_do", {"b": 2, "a": 1})).allowed
    others = [
        ("run_command", {"command": "make test clean"}), ("run_command", {"command": "make test; rm x"}),
        ("run_command", {"command": "make"}),
        ("write_file", {"path": "b.txt", "content": "1"}), ("write_file", {"path": "a.txt", "content": "2"}),
        ("edit_file", {"path": "a.txt"}),
        ("fetch_url", {"url": "https://a.org/y"}), ("fetch_url", {"url": "https://a.org/x?y"}),
        ("fetch_url", {"url": "http://a.org/x"}), ("fetch_url", {"url": "https://b.org/x"}),
        ("fetch_url", {"url": "https://a.org:8443/x"}),
    ]  # fmt: skip
    for name, arguments in others:
        assert gate.check(tools[name], ToolCall(name, arguments)).asked, (name, arguments)
    assert not gate.check(server, ToolCall("srv_do", {"a": 1, "b": 3})).allowed


SHELL_LINES = [
    "ls | wc", "ls && ls", "ls; ls", "ls > f", "ls < f", "ls &", "ls $HOME", "ls $(id)", "ls `id`", "ls\nls", "(ls)", "A=1 ls",
    "ls # x", "ls <<E\nx\nE", "ls >&2", "{ ls; }", "ls \\\n x", 'ls "$x"', "ls $'x'",
]  # fmt: skip


@pytest.mark.parametrize("line", SHELL_LINES)
def test_no_rule_and_no_default_covers_a_line_for_a_shell(line: str, tools: dict[str, Tool]) -> None:
    rules = [
        Rule("allow"), Rule("allow", "run_command"), Rule("allow", "run_command", "command", "*"),
        Rule("allow", "run_command", "command", "ls"), Rule("allow", "run_command", "command", line),
        Rule("allow", "run_command", "command", line, exact=True),
    ]  # fmt: skip
    runner = tools["run_command"]
    decision = Policy(rules, unconfined=True).decide(runner, command(line), [Rule("allow", "run_command", "command", "ls")])
    assert (decision.action, decision.reason) == ("ask", "a shell reads this line, so it is asked for as a whole")
    runner.approval = "allow"
    assert Policy().decide(runner, command(line)).action == "ask"
    assert Policy(rules).decide(runner, command(line), [always_rule(runner, command(line))]).action == "allow"
    denied = [*rules, Rule("deny", "run_command", "command", "ls")]
    assert Policy(denied).decide(runner, command(line), [always_rule(runner, command(line))]).action == "deny"


@pytest.mark.parametrize("line", ["", "ls 'x", "ls\0", "ls |", "# ls", "ls $(id"])
def test_nobody_is_asked_about_what_can_never_run(line: str, tools: dict[str, Tool]) -> None:
    person = FakePerson()
    for rules in ([], [Rule("allow", "run_command")], [Rule("allow", "run_command", "command", line, exact=True)]):
        verdict = Gate(Policy(rules), person).check(tools["run_command"], command(line))
        assert (verdict.allowed, verdict.asked) == (False, False)
        assert verdict.message.startswith("the command cannot be run: ")
    assert person.asked == []
    assert "a rule says deny" in Gate(Policy([Rule("deny")])).check(tools["run_command"], command(line)).message


@pytest.mark.parametrize("line", SHELL_LINES)
def test_where_nothing_confines_nobody_is_asked_about_a_line_for_a_shell(
    line: str, tools: dict[str, Tool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.children.process.report", lambda: "seccomp")
    verdict = Gate(Policy(unconfined=True), FakePerson()).check(tools["run_command"], command(line))
    assert (verdict.allowed, verdict.asked) == (False, False)
    assert verdict.message.startswith("there is no shell here: ")
    assert verdict.message.endswith("Run one program with its arguments")


def test_one_question_at_a_time_and_an_answer_covers_those_that_waited(tools: dict[str, Tool]) -> None:
    inside, most, count = 0, 0, 0

    def person(request: ApprovalRequest) -> Answer:
        nonlocal inside, most, count
        inside, count = inside + 1, count + 1
        most = max(most, inside)
        time.sleep(0.02)
        inside -= 1
        return Answer.always_yes()

    gate = Gate(Policy(), person)
    verdicts: list[bool] = []
    threads = [
        threading.Thread(target=lambda: verdicts.append(gate.check(tools["run_command"], command("ls")).allowed))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (verdicts, most, count) == ([True] * 8, 1, 1)


def test_a_policy_goes_to_a_file_and_comes_back() -> None:
    policy = Policy(
        (Rule("allow", "run_command", "command", "git status"), Rule("deny", "fetch_*"), Rule("ask", "x", "*", "{}", exact=True)),
        unconfined=True,
    )
    assert Policy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
    assert Policy.from_dict({}) == Policy()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"rules": [{"action": "permit"}]}, "use allow, ask or deny"),
        ({"rules": [{"tool": "x"}]}, "needs an action"),
        ({"rules": [{"action": "deny", "patern": "x"}]}, "has no 'patern'"),
        ({"rules": [{"action": "deny", "pattern": "x"}]}, "names no argument"),
        ({"rules": "all"}, "list of tables"),
        ({"rules": [5]}, "list of tables"),
        ({"rule": []}, "has no 'rule'"),
        ({"unconfined": 1}, "true or false"),
        ([], "a table with rules"),
        ({"rules": [{"action": "deny", "tool": ""}]}, "tool's name"),
    ],
)
def test_a_broken_policy_file_is_one_clear_line(data: Any, words: str) -> None:
    with pytest.raises(PolicyError, match=words) as e:
        Policy.from_dict(data)
    assert "\n" not in str(e.value)
