"""Log lines: with -v on standard error, for the chat in a file; safe to show, without a secret, without what was said."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pty
import select
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import logs
from agent.text import display
from tests.fixtures import command
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.paths import ROOT

FEW = ["--max-tokens", "8", "--seed", "5", "--threads", "1", "-c", "1024"]
EVIL = "evil \x1b[2J\x9b31m\u202e"
Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    chat_model(home / "models" / "tiny.gguf", "hermes", general__name=EVIL)
    return home


def sprig(*args: str, home: Path, said: str = "", **env: str) -> Done:
    given = {**os.environ, "SPRIG_HOME": str(home), "COLUMNS": "80", **env}
    called = [sys.executable, "-m", "sprig", *args]
    return subprocess.run(called, env=given, cwd=ROOT, capture_output=True, text=True, timeout=120, input=said)


@pytest.mark.slow
def test_ask_tells_with_v_what_happened_and_nothing_without(home: Path) -> None:
    quiet, told = (sprig("ask", "-m", "tiny", *FEW, *v, "Grow beetroots", home=home) for v in ([], ["-v"]))
    assert "agent." not in quiet.stderr
    for line in ("is " + str(home / "models" / "tiny.gguf"), "worker ", "dialect ", f"{display(EVIL)} loaded in", "run ended ("):
        assert line in told.stderr
    assert "\x1b" not in told.stderr
    assert "\x9b" not in told.stderr
    assert "beetroots" not in told.stderr


@pytest.mark.parametrize("name", ["ask", "chat", "sessions", "quantize", "inspect", "models"])
def test_every_command_has_the_option_in_the_same_words(name: str, home: Path) -> None:
    assert "-v, --verbose" in (told := command.sprig(name, "--help", home=home, COLUMNS="200").stdout)
    assert "Show log lines, and the traceback of an error." in told


@pytest.mark.slow
def test_models_and_sessions_tell_what_they_read(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    chat_model(tmp_path / "models" / "small.gguf", "hermes")
    assert "agent." not in sprig("models", home=tmp_path).stderr
    (tmp_path / "models" / "small.gguf").touch()
    done = sprig("models", "-v", "--json", home=tmp_path)
    assert "agent.models.file: " in done.stderr
    assert json.loads(done.stdout)["models"]
    assert "sessions.db opened" in sprig("sessions", "-v", home=tmp_path).stderr


def test_v_before_the_command_of_a_group_is_refused_and_not_ignored(home: Path) -> None:
    for group, called in (("models", "list"), ("sessions", "delete")):
        done = command.sprig(group, "-v", called, "x", home=home)
        assert done.returncode == 2
        assert f"sprig {group} {called} --json" in " ".join(done.stderr.split())


@pytest.mark.slow
def test_the_secrets_of_a_server_are_in_no_line(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    fails = "import os, sys; print(os.environ['WORD'], file=sys.stderr); sys.exit(os.environ['WORD'] + '\\x1b[2J')"
    servers = {"broken": {"command": sys.executable, "args": ["-c", fails], "env": {"WORD": "beetroot-soup"}}}
    config = tmp_path / "servers.json"
    config.write_text(json.dumps({"mcpServers": servers}))
    done = sprig("ask", "-v", "-m", "tiny", *FEW, "--mcp", str(config), "hello", home=home)
    lines = [line for line in done.stderr.splitlines() if line.startswith("agent.")]
    assert any("MCP server broken" in line for line in lines)
    assert not any("beetroot-soup" in line or "\x1b" in line for line in lines)


@pytest.mark.slow
def test_the_chats_file_tells_what_happened_and_not_what_was_said(home: Path) -> None:
    done = sprig("chat", "--plain", "-m", "tiny", "--tool", "none", "--seed", "5", home=home, said="Grow beetroots\n/quit\n")
    assert done.returncode == 0
    assert "agent." not in done.stderr
    text = (home / "logs" / "chat.log").read_text()
    assert "loaded in" in text
    assert "run ended (" in text
    assert "beetroots" not in text
    assert "\x1b" not in text


@pytest.mark.slow
def test_on_the_screen_v_writes_to_the_file_alone(home: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(home / "models")
    called = [sys.executable, "-m", "sprig", "chat", "-v", "-m", "tiny", "--tool", "none", "--seed", "5", "Grow beetroots"]
    ours, theirs = pty.openpty()
    env = {**os.environ, "SPRIG_HOME": str(tmp_path), "TERM": "xterm-256color"}
    log = tmp_path / "logs" / "chat.log"
    painted = bytearray()
    with subprocess.Popen(called, env=env, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as chat:
        os.close(theirs)
        end = time.monotonic() + 100
        while time.monotonic() < end and not (log.is_file() and "run ended (" in log.read_text()):
            if select.select([ours], [], [], 0.2)[0]:
                painted += os.read(ours, 1 << 16)
        chat.terminate()
        with contextlib.suppress(OSError):  # the terminal is gone with its last user
            while data := os.read(ours, 1 << 16):
                painted += data
    os.close(ours)
    text = log.read_text()
    assert "loaded in" in text
    assert "run ended (" in text
    assert "beetroots" not in text
    screen = painted.decode("utf-8", "replace")
    assert "beetroots" in screen
    assert "agent.engine" not in screen
    assert "loaded in" not in screen


@pytest.fixture
def loggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """A logger of ours, and all handlers as they were afterwards."""
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path))
    before = logging.raiseExceptions
    yield logging.getLogger("agent.some.module")
    logs._remove(logs._TERMINAL, logs._FILE)
    logging.raiseExceptions = before
    for name in logs._OURS:
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.mark.slow
def test_the_chats_file_is_small_private_and_turned_over(loggers: logging.Logger, tmp_path: Path) -> None:
    logs.to_file("chat", screen=True)
    for n in range(900):
        loggers.info("line %d of %s with a token=abcdefgh and %s", n, EVIL, "." * 1000)
    folder = tmp_path / "logs"
    assert {f.name for f in folder.iterdir()} == {"chat.log", "chat.log.1", "chat.log.2"}
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.stat().st_size <= 256_000
        text = file.read_text()
        assert "\x1b" not in text
        assert "abcdefgh" not in text
    assert "INFO agent.some.module: line 899 of evil" in (folder / "chat.log").read_text()


def test_nothing_reaches_the_terminal_while_a_screen_has_it(
    loggers: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.to_terminal(verbose=True)
    loggers.info("before")
    logs.to_file("chat", screen=True)
    loggers.error("broken %d", "no number")  # a fault of ours
    try:
        raise ValueError("the words of a server")
    except ValueError:
        logging.getLogger("some.library").warning("careful", exc_info=True)
    assert capsys.readouterr().err == "agent.some.module: before\n"
    kept = (tmp_path / "logs" / "chat.log").read_text()
    assert "some.library: careful" in kept
    assert "words of a server" not in kept
    (tmp_path / "logs" / "chat.log").unlink()
    (tmp_path / "logs").rmdir()
    (tmp_path / "logs").write_text("no folder")
    logs.to_file("chat", screen=True)
    loggers.error("this cannot be kept")
    assert capsys.readouterr().err == ""


def test_a_line_is_one_line_and_a_traceback_shows_no_secret(loggers: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logs.to_terminal(verbose=True)
    loggers.info("a forged\nagent.approval.policy: approval of shell: allowed")
    logging.getLogger("some.library").info("libraries are silent below warnings")
    try:
        raise ValueError("password=abcdefgh \x1b[2J")
    except ValueError:
        loggers.exception("it failed")
    err = capsys.readouterr().err
    assert err.splitlines()[0] == "agent.some.module: a forged␊agent.approval.policy: approval of shell: allowed"
    assert "Traceback" in err
    assert "abcdefgh" not in err
    assert "\x1b" not in err
    assert "libraries" not in err
    logs.to_terminal(verbose=False)
    loggers.warning("not without -v")
    logging.getLogger("some.library").error("nor a library's")
    assert capsys.readouterr().err == ""
