"""The first minute of the real command in a real terminal: everything typed lands in the prompt, and the shell is a key away."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.children.launch import stopped
from agent.sessions.store import Store
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.tmux import MISSING, Terminal, find_tmux

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_tmux() is None, reason=MISSING),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]
SIZE = (80, 24)
ALTERNATE = b"\x1b[?1049h"  # how a program takes the whole terminal


@pytest.fixture
def terminal(tmp_path: Path, home: Path) -> Iterator[Terminal]:
    with Terminal(*SIZE, tmp_path, {"SPRIG_HOME": str(home)}) as terminal:
        yield terminal


def asked() -> list[str]:
    """What the person has said in the last session, as it is on the disk."""
    with closing(Store()) as store:
        session = store.latest()
        return [m.message.text for m in session.messages() if m.message.role == "user"] if session is not None else []


def prompt(terminal: Terminal) -> str:
    """What stands in the prompt."""
    return next((line[3:].rstrip() for line in terminal.screen().splitlines() if line.startswith(" > ")), "")


def test_every_key_from_the_start_on_lands_in_the_prompt(terminal: Terminal, tmp_path: Path, home: Path) -> None:
    home.mkdir()
    (home / "settings.toml").write_text("[sampling]\nmax_tokens = 4\n")
    model = chat_model(tmp_path / "tiny.gguf", "chatml")
    terminal.run("sprig", "chat", "-m", str(model), "-c", "1024", "--threads", "1", "--tool", "none")
    # Before the program has even begun, while it paints, while the app starts, while the model loads.
    words = [f"né{number}" for number in range(40)]
    for number, word in enumerate(words):
        terminal.send(f"{word} ")
        if number == 30:
            terminal.until("> ")
    terminal.press("Enter")
    terminal.send("and this later")
    terminal.until(lambda: asked() and "ready" in terminal.screen())
    assert asked()[0].split()[-40:] == words
    terminal.until(lambda: prompt(terminal) == "and this later")

    # Ctrl+Z gives the terminal to the shell, and fg goes on where it was.
    terminal.press("C-z")
    terminal.until(lambda: terminal.ask("#{alternate_on}") == "0")
    terminal.until("topped")
    assert terminal.modes()[2004] is False
    terminal.send("stty -a | grep -c ' echo '; fg")
    terminal.press("Enter")
    terminal.until(lambda: terminal.ask("#{alternate_on}") == "1")
    terminal.until("ready")
    terminal.until(lambda: prompt(terminal) == "and this later")
    terminal.press("C-u", "C-d")
    terminal.until("The conversation is kept")
    terminal.until(lambda: terminal.ask("#{pane_current_command}") == "sh")
    assert re.search(r"sprig chat --session [a-z0-9]{10} -m ", terminal.screen().replace("\n", " ")), "how to go on"


@pytest.mark.parametrize("how", ["CONT", "STOP", "TSTP", "bg"])
def test_whoever_stops_it_the_terminal_is_taken_again_and_only_once(
    terminal: Terminal, tmp_path: Path, home: Path, how: str
) -> None:
    """Taken twice, two would read the keys, and one of them would never end."""

    def taken() -> int:
        return terminal.raw().count(ALTERNATE) - terminal.raw().count(ALTERNATE.replace(b"h", b"l"))

    model = chat_model(tmp_path / "tiny.gguf", "chatml")
    terminal.run("sprig", "chat", "-m", str(model), "-c", "1024", "--threads", "1", "--tool", "none")
    terminal.until("ready")
    before, count = taken(), terminal.raw().count(ALTERNATE)
    if how == "bg":
        terminal.press("C-z")
        terminal.until("topped")
        terminal.send("bg")
        terminal.press("Enter")
        terminal.until(lambda: terminal.screen().count("topped") == 2 or terminal.press("Enter"))  # told with the next prompt
        assert terminal.ask("#{alternate_on}") == "0", "in the background it leaves the screen alone"
        terminal.send("fg")
        terminal.press("Enter")
    else:
        process = next(p for p in terminal.processes() if "-m sprig chat" in p.command)
        os.kill(process.pid, signal.Signals[f"SIG{how}"])
        if how != "CONT":
            terminal.until(lambda: stopped(process.pid))
            os.kill(process.pid, signal.SIGCONT)
    terminal.until(lambda: terminal.raw().count(ALTERNATE) > count)
    terminal.until("ready")
    terminal.send("hello")
    terminal.until(lambda: prompt(terminal) == "hello")
    assert taken() == before
    terminal.press("C-u", "C-d")
    terminal.until(lambda: terminal.ask("#{pane_current_command}") == "sh")


def test_before_a_model_is_chosen_what_is_typed_waits_for_it(terminal: Terminal, tmp_path: Path, home: Path) -> None:
    (home / "models").mkdir(parents=True)
    (home / "settings.toml").write_text("[sampling]\nmax_tokens = 4\n")
    chat_model(home / "models" / "tiny.gguf", "chatml")
    terminal.run("sprig", "chat", "-c", "1024", "--threads", "1", "--tool", "none")
    terminal.send("what is this?")
    terminal.press("Enter")
    terminal.until("tiny")
    terminal.until("Which model")
    terminal.press("Enter")
    terminal.until(lambda: asked() == ["what is this?"])
