"""The tool that runs a command, from the model's side."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.children import process
from agent.children.rules import ResourceLimits
from agent.text.command_line import read_command
from agent.tools.builtin.catalogue import builtin
from agent.tools.define import Tool
from agent.tools.result import ToolContext, ToolResult
from tests.fixtures.generated import runs


def runner(root: Path, **settings_: Any) -> Tool:
    return builtin(["run_command"], root=root, **settings_)[0]


def run(root: Path, command: str, **settings_: Any) -> ToolResult:
    return runner(root, **settings_).invoke({"command": command})


@pytest.mark.slow
def test_a_program_and_its_arguments(tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_text("one\ntwo\n")
    result = run(tmp_path, "wc -l 'a b.txt'")
    assert (result.ok, result.text) == (True, "2 a b.txt")
    assert result.data["confined"] == process.report()
    assert run(tmp_path, "true").text == "done, no output"
    failed = run(tmp_path, "ls nowhere")
    assert not failed.ok
    assert failed.text.endswith("[exit status 2]")
    assert run(tmp_path, "nonsuch -x").text == "no such command: nonsuch"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where nothing confines files."""
    monkeypatch.setattr(process, "report", lambda: "seccomp")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ls | wc", "| (a pipe)"), ("ls > f", "> (a redirection)"), ("ls; ls", "; (a second command)"),
        ("ls && ls", "&& (a second command)"), ("ls &", "& (a background job)"),
        ("echo $HOME", "a variable"), ("echo $(ls)", "a command substitution"), ("echo `ls`", "a command substitution"),
        ("ls\nls", "a new line"),
        ("(ls)", "a subshell"), ("A=1 ls", "sets a variable"),
    ],
)  # fmt: skip
def test_what_needs_a_shell_is_refused_clearly_where_nothing_confines(
    tmp_path: Path, command: str, words: str, bare: None
) -> None:
    tool = runner(tmp_path)
    for said in (tool.impossible({"command": command}), tool.invoke({"command": command}).text):
        assert words in said
        assert said.endswith("Run one program with its arguments")
        assert "\n" not in said
    assert "without a shell" in tool.spec.description


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ls 'x", "a quote does not end"), ('ls "x', "a quote does not end"), ("ls $'x", "a quote does not end"), ("", "empty"),
        ("  ", "empty"), ("# ls", "empty"), ("ls\0", "NUL"), ("ls \\", "backslash"), ("ls |", "nothing follows |"),
        ("ls &&", "nothing follows &&"), ("| ls", "nothing stands before |"), ("ls ; ; ls", "nothing stands before ;"),
        ("ls >", "names no file"), ("ls > | wc", "names no file"), ("echo $(ls", "does not end"), ("echo `ls", "does not end"),
        ("echo ${x", "does not end"), ("$(" * 40 + ")" * 40, "too many"), ("${x:-" * 40 + "}" * 40, "too many"),
        ("ls " + "x" * 100_000, "more than 100,000 characters"), ("echo \"$(ls 'x)\"", "a quote does not end"),
    ],
)  # fmt: skip
def test_what_can_never_run_is_refused_everywhere(tmp_path: Path, command: str, words: str) -> None:
    tool = runner(tmp_path)
    for said in (tool.impossible({"command": command}), tool.invoke({"command": command}).text):
        assert said.startswith("the command cannot be run: ")
        assert words in said
        assert "\n" not in said


needs_a_shell = pytest.mark.skipif(not process.confines_files(), reason="nothing confines files here, so that no shell runs")


@needs_a_shell
@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("echo one > f && cat f | tr o 0; echo $((1+1))", "0ne\n2"),
        ("x='a b'; for i in 1 2; do echo \"$i $x\"; done", "1 a b\n2 a b"),
        ("cat <<'EOF'\ndon't ${x}\nEOF\necho b", "don't ${x}\nb"),
        ("case $(echo a) in a) echo yes;; *) echo no;; esac", "yes"),
        ('f() { echo "$1"; }; f x # it\'s a comment\ntrue', "x"),
        ("A=1 sh -c 'echo $A'", "1"),
        ("echo a \\\n b", "a b"),
        ('if [ -f none ]; then echo y; else echo "n $?"; fi', "n 1"),
    ],
)
def test_where_files_are_confined_a_shell_reads_what_needs_one(tmp_path: Path, command: str, text: str) -> None:
    tool = runner(tmp_path)
    assert tool.impossible({"command": command}) == ""
    result = tool.invoke({"command": command})
    assert (result.ok, result.text) == (True, text)
    assert tool.spec.description == "Run a shell command and get its output."


@needs_a_shell
def test_a_shell_is_confined_like_any_command(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    result = run(tmp_path / "root", "echo x > ../out; echo y > in; cat in")
    assert result.text.endswith("y")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_wildcards_find_names_and_names_are_no_options(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "-rf.txt"):
        (tmp_path / name).touch()
    assert run(tmp_path, "echo *.txt").text == "./-rf.txt a.txt b.txt"
    assert run(tmp_path, "echo '*.txt' \\*.txt").text == "*.txt *.txt"
    assert run(tmp_path, "echo *.none").text == "*.none"


@pytest.mark.skipif("landlock" not in process.report(), reason="nothing hides other folders here")
def test_wildcards_see_no_more_than_the_command(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "private.txt").touch()
    assert run(tmp_path / "root", "echo ../*.txt").text == "../*.txt"


@settings(max_examples=runs(300), derandomize=True, deadline=None, database=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=4))
def test_quoted_words_are_read_as_they_were(words: list[str]) -> None:
    import shlex

    line = read_command(shlex.join(words))
    assert (line.operators, line.broken) == ((), "")
    assert list(line.argv) == words
    for word in line.words:
        assert 0 <= word.start < word.end <= len(shlex.join(words))


@pytest.mark.slow
def test_output_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "esc").write_bytes(b"\x1b[2J\x1b]0;title\x07red\x1b[0m\r\n50%\r100%\n")
    (tmp_path / "bad").write_bytes(b"gr\xfcn\0x\n")
    (tmp_path / "bin").write_bytes(os.urandom(5000))
    (tmp_path / "storm").write_bytes(b"\x1b[31m" * 100_000)
    assert run(tmp_path, "cat esc").text == "red\n50%\n100%"
    assert run(tmp_path, "cat bad").text == "gr\ufffdnx"
    assert "binary data, 5,000 bytes" in run(tmp_path, "cat bin").text
    storm = run(tmp_path, "cat storm").text
    assert "\x1b" not in storm
    assert "left out" in storm


@pytest.mark.slow
@needs_a_shell
def test_a_late_one_says_so_and_what_it_said_until_then(tmp_path: Path) -> None:
    began = time.monotonic()
    result = run(tmp_path, "echo first; exec sleep 30", command_seconds=1)
    assert not result.ok
    assert result.text == "first\n[ended after 1 s, which is all it may take]"
    assert time.monotonic() - began < 4


@pytest.mark.slow
@needs_a_shell
def test_how_it_ended_is_told(tmp_path: Path) -> None:
    assert run(tmp_path, "kill -SEGV $$").text == "[it died of SIGSEGV]"
    small = ResourceLimits(file_size=1000)
    assert run(tmp_path, "head -c 5000 /dev/zero > f", command_limits=small).text.splitlines()[-1].startswith("[exit status")
    left = run(tmp_path, "sleep 100 & sleep 100 & sleep 0.1; echo ok").text
    assert left == "ok\n[2 processes left running in the background, ended]"


@pytest.mark.slow
def test_cancelled_while_it_runs(tmp_path: Path) -> None:
    import threading

    context = ToolContext()
    threading.Timer(0.3, context.cancelled.set).start()
    threads = threading.active_count() - 1  # the timer's
    began = time.monotonic()
    result = runner(tmp_path).invoke({"command": "sleep 30"}, context)
    assert (result.ok, result.text) == (False, "cancelled")
    assert time.monotonic() - began < 2
    while threading.active_count() > threads and time.monotonic() - began < 20:
        time.sleep(0.01)  # the answer does not wait for the process to be gone


def test_the_tool_knows_when_nothing_confines_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "report", lambda: "seccomp")
    assert "confinement: seccomp" in runner(tmp_path).unconfined
    monkeypatch.setattr(process, "report", lambda: "landlock+seccomp")
    assert runner(tmp_path).unconfined == ""


@pytest.mark.slow
def test_nothing_is_left_open(tmp_path: Path) -> None:
    run(tmp_path, "true")
    gc.collect()  # what tests before this one left
    before = len(list(Path("/proc/self/fd").iterdir()))
    for command in ("true", "false", "nonsuch", "echo x"):
        run(tmp_path, command)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
