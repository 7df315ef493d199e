"""The first frame stands before Textual is loaded, and the terminal is left clean."""

from __future__ import annotations

import subprocess
import sys

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
