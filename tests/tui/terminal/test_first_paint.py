"""The first frame stands before Textual is loaded; what is typed meanwhile is in the prompt, and the terminal is left clean."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time

import pyte
import pytest

from tests.fixtures.paths import ROOT
from tui.terminal.first_paint import frame


def painted(width: int, height: int) -> list[str]:
    screen = pyte.Screen(width, height)
    pyte.Stream(screen).feed(frame(width, height))
    return [line.rstrip() for line in screen.display]


@pytest.mark.parametrize("size", [(40, 15), (60, 20), (80, 24), (160, 50), (20, 5), (3, 2)])
def test_the_frame_fits_any_terminal(size: tuple[int, int]) -> None:
    width, height = size
    lines = painted(width, height)
    assert len(lines) == height
    if width >= 40:
        assert any("> Ask something" in line for line in lines)
        assert any(line.startswith("─") for line in lines)


def test_keys_typed_while_it_loads_wait_for_the_prompt_and_are_shown_once() -> None:
    code = (
        "import sys, time\n"
        "from tui.terminal.first_paint import first_paint\n"
        "with first_paint():\n"
        "    time.sleep(0.5)\n"
        "import os, termios\n"
        "mode = termios.tcgetattr(0)\n"
        "now = [*mode]; now[3] &= ~(termios.ECHO | termios.ICANON)\n"
        "termios.tcsetattr(0, termios.TCSANOW, now)\n"
        "print('read', os.read(0, 100))\n"
        "termios.tcsetattr(0, termios.TCSANOW, mode)\n"
    )
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    child = subprocess.Popen([sys.executable, "-c", code], stdin=slave, stdout=slave, stderr=slave, cwd=ROOT)
    seen = b""
    typed = False
    end = time.monotonic() + 20
    while b"read b" not in seen and time.monotonic() < end:
        if select.select([master], [], [], 0.1)[0]:
            seen += os.read(master, 65536)
        if b"Ask something" in seen and not typed:
            typed = True
            os.write(master, b"hello")
    assert child.wait(10) == 0
    assert b"read b'hello'" in seen
    assert seen.count(b"hello") == 1, "not echoed over the frame"
    assert termios.tcgetattr(slave)[3] == before[3]
    os.close(master)
    os.close(slave)


def test_a_fault_while_it_loads_leaves_the_terminal_as_it_was() -> None:
    code = (
        "from tui.terminal.first_paint import first_paint\n"
        "try:\n"
        "    with first_paint(): raise KeyError\n"
        "except KeyError: print('out')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60)
    assert done.stderr.endswith(b"\x1b[?25h\x1b[?1049l")
    assert done.stdout.strip() == b"out"


def test_a_signal_to_end_while_it_loads_leaves_the_terminal_as_it_was() -> None:
    code = (
        "import os, signal, time\n"
        "from tui.terminal.first_paint import first_paint\n"
        "with first_paint():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(10)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60)
    assert done.stderr.endswith(b"\x1b[?25h\x1b[?1049l")
    assert done.returncode == 143


def test_it_needs_nothing_heavy() -> None:
    heavy = {"textual", "rich", "numpy"}
    code = f"import sys, tui.terminal.first_paint; print(*sorted({{m.partition('.')[0] for m in sys.modules}} & {heavy!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "")
