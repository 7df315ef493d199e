"""Nothing is sent anywhere that nobody asked for: commands that need no network ask no name server and no host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.paths import ROOT

pytestmark = pytest.mark.slow

# Every call that leads out of the machine passes here, whoever makes it; sockets of the file system lead nowhere.
WATCH = """
import sys

def watch(event, arguments):
    asks = event in ("socket.getaddrinfo", "socket.gethostbyname")
    leaves = event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple)
    if asks or leaves:
        print("REACHED OUT", event, arguments, file=sys.stderr, flush=True)

sys.addaudithook(watch)
"""
COMMAND = WATCH + "import sprig; sprig.main()"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one model, as after a first download."""
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    chat_model(home / "models" / "tiny.gguf", "hermes")
    return home


def watched(code: str, *arguments: str, home: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "SPRIG_HOME": str(home), "HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=home, env=env, input=stdin, capture_output=True, text=True, timeout=120)


FEW = ("-m", "tiny", "--max-tokens", "8", "--threads", "1", "-c", "2048")


@pytest.mark.parametrize(
    "arguments",
    [
        ("models", "--everywhere"),
        ("inspect", "tiny"),
        ("ask", "Hello", *FEW),
        ("chat", "--plain", *FEW),
        ("sessions",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_runs_here_asks_no_host(arguments: tuple[str, ...], home: Path) -> None:
    done = watched(COMMAND, *arguments, home=home, stdin="Hello\n" if arguments[0] == "chat" else "")
    assert "REACHED OUT" not in done.stderr
    assert done.returncode == 0 or arguments[0] == "ask", done.stderr  # an answer of eight tokens is cut off: status 1


@pytest.mark.parametrize("call", ["socket.getaddrinfo('example.invalid', 80)", "socket.create_connection(('127.0.0.1', 9), 1)"])
def test_the_watch_sees_who_reaches_out(call: str, home: Path) -> None:
    assert "REACHED OUT" in watched(f"{WATCH}\nimport socket\ntry: {call}\nexcept OSError: pass", home=home).stderr
