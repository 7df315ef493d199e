"""A person with a dumb terminal or a screen reader talks in lines: no control sequence is ever written."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent import tool
from tests.fixtures.fake_engine import FakeEngine, Say, call_text
from tests.fixtures.mcp_servers import GROWS, ChangingServer
from tests.fixtures.paths import ROOT
from tui.plain import chat_plainly
from tui.talk.setup import Setup

pytestmark = pytest.mark.usefixtures("home")


class Typed(io.StringIO):
    """What a person at a terminal types."""

    def isatty(self) -> bool:
        return True


def chat(lines: str, script: Sequence[Say | str], *, terminal: bool = True, **setup: Any) -> str:
    engine = FakeEngine(script)
    out = io.StringIO()
    source = (Typed if terminal else io.StringIO)(lines)
    with contextlib.suppress(SystemExit):
        chat_plainly(Setup(model="fake", **setup), source=source, out=out, make_engine=lambda s: engine)
    return out.getvalue()


def test_a_conversation_in_lines() -> None:
    said = chat("Hello\\\nthere\n/again\n/edit Good day\n/nonsense\n/help\n/quit\nnever read\n", ["One.", "Two.", "Three."])
    assert [s in said for s in ("One.\n", "Two.\n", "Three.\n")] == [True] * 3
    assert "There is no command /nonsense" in said
    assert "/again " in said
    assert "never read" not in said


def test_nothing_of_a_model_or_a_tool_reaches_the_terminal_as_a_command() -> None:
    @tool
    def spy() -> str:
        return "\x1b]52;c;aGk=\x07 and \u202e"

    said = chat("Go\n", [f"\x1b[2J\x9b31m{call_text('spy', {})}", "fin\x1b]0;x\x07al"], tools=(spy,))
    assert not set(said) & {"\x1b", "\x9b", "\x07", "\u202e"}
    assert "␛[2J" in said
    assert "fin␛]0;x␇al" in said


@pytest.mark.slow
def test_what_a_server_changed_of_its_tools_is_a_line(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    server = ChangingServer(tmp_path, "open", behaviour=GROWS)
    script = [call_text("house__open", {}), "Open.", call_text("house__unlock", {}), "Unlocked."]
    said = chat("Open\ny\nUnlock\ny\n", script, mcp=(server.config,))
    assert "Tools: house__open." in said
    assert said.count("sprig: the tools of MCP servers are others now: new house__unlock\n") == 1
    assert "Tool house__unlock is done" in said


@pytest.mark.parametrize(
    ("reply", "ran"), [("y", 1), ("s", 2), ("a", 2), ("n", 0), ("", 0), ("not in this house", 0), ("yess", 0)]
)
def test_a_tool_asks_in_a_line(reply: str, ran: int) -> None:
    done: list[str] = []

    @tool(approval="ask")
    def press(button: str) -> str:
        done.append(button)
        return "pressed"

    call = call_text("press", {"button": "red"})
    said = chat(f"Press it\n{reply}\nAgain\n", [call, "ok", call, "ok"], tools=(press,))
    assert "The model wants to run a tool" in said
    assert "button: red" in said
    assert len(done) == ran
    assert said.count("Allow it?") == (1 if reply in ("s", "a") else 2)


def test_a_pipe_is_nobody_who_could_allow_something() -> None:
    done: list[int] = []

    @tool(approval="ask")
    def press() -> str:
        done.append(1)
        return ""

    said = chat("Press\ny\n", [call_text("press", {}), "ok", "ok"], terminal=False, tools=(press,))
    assert done == []
    assert "nobody is at the terminal" in said


@pytest.mark.slow
def test_conversations_are_listed_and_taken_up_again() -> None:
    first = chat("My name is Bo\n", ["Hello Bo"])
    assert "Hello Bo" in first
    said = chat("/sessions\n/quit\n", [])
    id = next(line.removeprefix("> ").split()[0] for line in said.splitlines() if "My name is Bo" in line)
    again = chat(f"/open {id}\nAnd now?\n", ["Still here"])
    assert again.index("Model: Hello Bo") < again.index("Still here")


@pytest.mark.slow
def test_ctrl_c_stops_the_answer_and_not_the_chat(tmp_path: Path) -> None:
    """The real program in a real terminal, with a model that would talk for long."""
    code = (
        "import sys, time\n"
        "from tests.fixtures.fake_engine import FakeEngine, Say\n"
        "from tui.plain import chat_plainly\n"
        "from tui.talk.setup import Setup\n"
        "slow = Say('word ' * 2000, during=lambda said: time.sleep(0.01))\n"
        "chat_plainly(Setup(model='fake'), make_engine=lambda s: FakeEngine([slow, 'Second answer.']))\n"
    )
    master, slave = pty.openpty()
    env = {**os.environ, "SPRIG_HOME": str(tmp_path), "TERM": "dumb", "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=slave, stdout=slave, stderr=slave, env=env, cwd=ROOT, start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(slave)
    seen = b""

    def until(text: bytes) -> None:
        nonlocal seen
        end = time.monotonic() + 20
        while text not in seen:
            assert time.monotonic() < end, seen[-400:]
            if select.select([master], [], [], 0.2)[0]:
                seen += os.read(master, 65536)

    until(b"> ")
    os.write(master, b"Talk\n")
    until(b"word word word word")
    os.write(master, b"\x03")
    until(b"Stopping")
    until(b"cancelled")
    os.write(master, b"More\n")
    until(b"Second answer.")
    os.write(master, b"\x04")
    assert child.wait(20) == 0
    os.close(master)
    assert b"\x1b" not in seen


def test_a_file_goes_back_and_the_conversation_is_shortened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").write_text("water\nbread\n")
    script = [call_text("write_file", {"path": "notes.txt", "content": "milk\n"}), "Written. " * 50, "Second."]
    said = chat("Undo\n/undo\n/compact\nWrite it\ny\nAnd?\n/compact\n/undo\n/undo\n", ["Hm.", *script],
                tools=("write_file",), root=tmp_path)  # fmt: skip
    assert "sprig: this conversation has no message yet" not in said
    assert "No tool has written a file that could go back." in said
    assert "sprig: there is nothing to shorten" in said
    assert "replaces 2 lines with 1\n@@ -1,2 +1 @@\n-water\n-bread\n+milk\n" in said
    assert "2 former turns replaced by a digest (" in said
    assert "notes.txt: put back\nWhat commands changed stays as it is.\n" in said
    assert (tmp_path / "notes.txt").read_text() == "water\nbread\n"


@pytest.mark.slow
def test_a_message_is_written_in_an_editor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\necho "and more" >> "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    said = chat("/editor Tell me\n", ["All right."])
    assert "Tell me\nand more\nAll right." in said
    assert "sprig: an editor needs a terminal" in chat("/editor x\n", [], terminal=False)
