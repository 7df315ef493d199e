"""What is typed before the application reads it is neither lost nor shown twice, and Enter stays Enter."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
import time

import pytest
from textual.events import Key, Paste

from tests.fixtures.paths import ROOT
from tui.terminal.typed_ahead import TypedAhead
from tui.terminal.waiting_keys import keys_of

# A program like the chat: it loads for a while, then reads keys as they are pressed.
PROGRAM = """
import os, sys
from tui.terminal.typed_ahead import typed_ahead
with typed_ahead() as typed:
    print("painted", flush=True)
    waiting = b""
    while not waiting.endswith(b"!"):
        waiting += os.read(0, 100)
    print("before", ascii(typed.text), "since", waiting, flush=True)
"""


@pytest.fixture
def line() -> tuple[int, int]:
    return pty.openpty()


def run(line: tuple[int, int], early: bytes, late: bytes) -> str:
    """What the program says of keys that came before it began, and before it read."""
    master, slave = line
    os.write(master, early)
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=slave, stdout=slave, stderr=slave, cwd=ROOT)
    seen, end = b"", time.monotonic() + 30
    while b"painted" not in seen and time.monotonic() < end:
        seen += os.read(master, 65536)
    os.write(master, late)
    assert child.wait(30) == 0
    while b"since" not in seen:
        seen += os.read(master, 65536)
    return seen.decode().partition("painted")[2].strip()


@pytest.mark.parametrize(
    ("early", "late", "before", "since"),
    [
        (b"", b"hello\r!", "''", b"hello\r!"),
        (b"hello\r", b"again!", r"'hello\r'", b"again!"),
        (b"not yet sent", b" but now\r!", "'not yet sent'", b" but now\r!"),
        ("naïve 日本\r".encode(), "é😀!".encode(), r"'na\xefve \u65e5\u672c\r'", "é😀!".encode()),
        (b"first\rsecond\r", b"a line\nand another!", r"'first\rsecond\r'", b"a line\nand another!"),
        (b"wrogn\x7f\x7fng\r", b"\x1b[200~a\r\nb\x1b[201~!", r"'wrong\r'", b"\x1b[200~a\r\nb\x1b[201~!"),
        (b"bye\x04", b"\x1a\x13\x11!", "'bye'", b"\x1a\x13\x11!"),
    ],
)
def test_every_key_is_there_as_it_was_pressed(
    line: tuple[int, int], early: bytes, late: bytes, before: str, since: bytes
) -> None:  # fmt: skip
    at_first = termios.tcgetattr(line[1])
    assert run(line, early, late) == f"before {before} since {since!r}", "and what came after the first frame is not echoed"
    assert termios.tcgetattr(line[1]) == at_first


def test_where_there_is_no_terminal_nothing_is_read() -> None:
    code = PROGRAM.replace("while not waiting", "while False and not waiting")
    done = subprocess.run([sys.executable, "-c", code], input="one\n", cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["painted", "before '' since b''"]
    assert TypedAhead().attributes is None


def test_keys_are_those_that_a_terminal_would_have_told() -> None:
    keys = [event.key if isinstance(event, Key) else event for event in keys_of("aé日\r\x1b[A\t\x7f")]
    assert keys == ["a", "é", "日", "enter", "up", "tab", "backspace"]
    (paste,) = keys_of("\x1b[200~two\rlines\x1b[201~")
    assert isinstance(paste, Paste)
    assert paste.text == "two\rlines"
    assert [event.key for event in keys_of("a\x1b") if isinstance(event, Key)] == ["a", "escape"]
    assert list(keys_of("")) == []
