"""Stories of copied text: which bytes go to which terminal, which program gets it, and what the person is told."""

from __future__ import annotations

import base64
import os
import pty
import re
import select
import shutil
import subprocess
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App

from tui.terminal import clipboard
from tui.terminal.clipboard import BROWSER_LIMIT, TERMINAL_LIMIT, copy, terminal_sequence

_ABOUT_TERMINALS = (
    "TMUX", "STY", "TERM", "DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION", "SSH_TTY", "TERMUX_VERSION",
)  # fmt: skip


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A terminal on a machine without a desktop, and with no program for clipboards."""
    for name in _ABOUT_TERMINALS:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(clipboard.sys, "platform", "linux")


def program(tmp_path: Path, name: str, body: str = 'cat > "$0.got"') -> Callable[[], str]:
    """A program of this name in PATH; what it was given is the answer."""
    path = tmp_path / "bin" / name
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{body}\n")
    path.chmod(0o755)
    got = path.with_name(f"{name}.got")
    return lambda: got.read_text() if got.exists() else ""


async def copied(text: str, monkeypatch: pytest.MonkeyPatch, *, web: bool = False) -> tuple[str, str, App[None]]:
    """What was said, what was written to the terminal meanwhile, and the app."""
    app = App[None]()
    written: list[str] = []
    async with app.run_test():
        assert app._driver is not None
        with monkeypatch.context() as patched:
            patched.setattr(app._driver, "write", written.append)
            patched.setattr(App, "is_web", property(lambda _: web))
            said = await copy(app, text)
    return said, "".join(written), app


def osc52(text: str) -> str:
    return f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\a"


async def test_a_bare_terminal_gets_the_escape_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    said, written, app = await copied("grüße\nfrom afar", monkeypatch)
    assert osc52("grüße\nfrom afar") in written
    assert said == "Sent 2 lines to the terminal's clipboard."
    assert app.clipboard == "grüße\nfrom afar"  # Ctrl+V within the app


async def test_nothing_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    said, written, _ = await copied("", monkeypatch)
    assert said == "There is nothing to copy."
    assert "]52;" not in written


async def test_half_of_a_pair_does_not_break_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said, written, _ = await copied("a\ud83d", monkeypatch)
    assert osc52("a\ufffd") in written
    assert "2 characters" in said


@given(st.binary(max_size=4000))
def test_tmux_and_screen_pass_on_what_the_terminal_is_to_get(data: bytes) -> None:
    plain = terminal_sequence(data, {})
    whole = terminal_sequence(data, {"TMUX": "/tmp/tmux-0/default,1,0"})
    assert whole.startswith(plain)
    wrapped = whole.removeprefix(plain)
    assert wrapped.startswith("\x1bPtmux;")
    assert wrapped.endswith("\x1b\\")
    assert wrapped[7:-2].replace("\x1b\x1b", "\x1b") == plain
    parts = re.findall(r"\x1bP(.*?)\x1b\\", terminal_sequence(data, {"STY": "1.tty"}), re.S)
    assert "".join(parts) == plain
    assert max(len(part) + 4 for part in parts) <= 256


async def test_tmux_at_the_other_end_of_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "tmux-256color")
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.2 5 10.0.0.1 22")
    said, written, _ = await copied("far", monkeypatch)
    assert "\x1bPtmux;\x1b\x1b]52;c;" in written
    assert "set-clipboard on" in said


async def test_a_desktop_is_asked_directly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wayland, x11 = program(tmp_path, "wl-copy"), program(tmp_path, "xclip")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    monkeypatch.setenv("DISPLAY", ":0")
    said, written, _ = await copied("here", monkeypatch)
    assert (wayland(), x11(), "]52;" in written) == ("here", "", False)
    assert said == "Copied 4 characters (wl-copy)."


async def test_over_ssh_the_desktop_of_the_machine_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    x11 = program(tmp_path, "xclip")
    monkeypatch.setenv("DISPLAY", "localhost:10.0")
    monkeypatch.setenv("SSH_TTY", "/dev/pts/3")
    _, written, _ = await copied("far", monkeypatch)
    assert x11() == ""
    assert osc52("far") in written


async def test_a_phone_gets_it_through_termux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    phone = program(tmp_path, "termux-clipboard-set")
    monkeypatch.setenv("TERMUX_VERSION", "0.118")
    said, _, _ = await copied("x" * 200_000, monkeypatch)  # a program has no limit of a terminal
    assert phone() == "x" * 200_000
    assert said == "Copied 200,000 characters (termux-clipboard-set)."


@pytest.mark.parametrize("body", ["exit 1", "exec sleep 60"])
async def test_a_program_that_fails_or_hangs_is_no_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> None:
    program(tmp_path, "termux-clipboard-set", body)
    monkeypatch.setenv("TERMUX_VERSION", "0.118")
    monkeypatch.setattr(clipboard, "_SECONDS", 0.1)
    said, written, _ = await copied("still", monkeypatch)
    assert osc52("still") in written
    assert said.startswith("Sent 5 characters to the terminal's clipboard")


async def test_what_no_terminal_takes_goes_into_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said, written, _ = await copied("y" * TERMINAL_LIMIT, monkeypatch)
    longest = max(re.findall("\x1b]52;[^\a]*\a", written), key=len)
    assert len(longest) <= 100_000
    said, written, _ = await copied("y" * (TERMINAL_LIMIT + 1), monkeypatch)
    assert "]52;" not in written
    assert (tmp_path / "home" / "copied.txt").read_text() == "y" * (TERMINAL_LIMIT + 1)
    assert str(tmp_path / "home" / "copied.txt") in said
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path / "file"))
    said, _, _ = await copied("y" * 100_000, monkeypatch)
    assert said.startswith("Not copied: ")
    assert "\n" not in said


async def test_in_a_browser_the_page_gets_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = program(tmp_path, "xclip")
    monkeypatch.setenv("DISPLAY", ":0")  # of the machine that serves, where nobody may sit
    monkeypatch.setenv("TMUX", "/tmp/x,1,0")
    said, written, _ = await copied("z" * 200_000, monkeypatch, web=True)
    assert osc52("z" * 200_000) in written
    assert "Ptmux" not in written
    assert server() == ""
    assert "https or from localhost" in said


async def test_a_browser_gets_what_is_too_long_as_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[tuple[int, Any]] = []
    monkeypatch.setattr(App, "deliver_text", lambda _, file, *, save_filename: got.append((len(file.read()), save_filename)))
    said, written, _ = await copied("z" * (BROWSER_LIMIT + 1), monkeypatch, web=True)
    assert got == [(BROWSER_LIMIT + 1, "copied.txt")]
    assert "]52;" not in written
    assert "copied.txt" in said


_TMUX = shutil.which("tmux")


class Tmux:
    """A tmux of its own, with the settings that it comes with, looked at by a terminal whose output can be read."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._screen, terminal = pty.openpty()
        tty.setraw(terminal)
        self._client = subprocess.Popen(
            [*self._words("new-session"), "cat"], env=self._environment, stdin=terminal, stdout=terminal, stderr=terminal
        )
        os.close(terminal)
        while not (self._client.poll() is None and self._clients()):
            assert self._client.poll() is None, "tmux did not start"

    _environment = {"PATH": "/usr/bin:/bin", "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}

    def _words(self, *words: str) -> list[str]:
        assert _TMUX is not None
        return [_TMUX, "-S", str(self.socket), "-f", "/dev/null", *words]

    def _clients(self) -> str:
        return subprocess.run(self._words("list-clients"), env=self._environment, capture_output=True, text=True).stdout

    def run(self, *words: str) -> str:
        return subprocess.run(self._words(*words), check=True, capture_output=True, text=True, env=self._environment).stdout

    def seen(self, wanted: bytes) -> bool:
        """Whether the terminal gets these bytes; waits for them."""
        got = b""
        while wanted not in got and select.select([self._screen], [], [], 10)[0]:
            got += os.read(self._screen, 65536)
        return wanted in got

    def close(self) -> None:
        self.run("kill-server")
        self._client.wait(10)
        os.close(self._screen)


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    opened = Tmux(tmp_path / "tmux")
    yield opened
    opened.close()


@pytest.mark.skipif(_TMUX is None, reason="tmux is not installed")
async def test_a_real_tmux_takes_it_as_it_is_set_up(tmux: Tmux, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert _TMUX is not None
    (tmp_path / "bin" / "tmux").symlink_to(_TMUX)
    pid = tmux.run("display-message", "-p", "#{pid}").strip()
    monkeypatch.setenv("TMUX", f"{tmux.socket},{pid},0")
    said, written, _ = await copied("two\nlines", monkeypatch)
    assert tmux.seen(base64.b64encode(b"two\nlines"))  # the terminal around tmux has it
    assert tmux.run("show-buffer") == "two\nlines"
    assert "]52;" not in written
    assert said == "Copied 2 lines (tmux)."
    said, _, _ = await copied("x" * 80_000, monkeypatch)
    assert "within tmux" in said
