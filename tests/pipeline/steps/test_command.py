"""A command as a step: its answer, what it says meanwhile, why it failed, and what becomes of it when nobody waits any longer."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from agent.errors import SprigError
from pipeline.steps import command
from pipeline.steps.command import KilledError, run_command
from pipeline.steps.commands import command_options


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch) -> list[Popen[bytes]]:
    """A small program in the place of `sprig`: the first argument is what it does. The processes that were started."""
    started: list[Popen[bytes]] = []

    def launch(module: str, line: list[str], env: Mapping[str, str], **streams: Any) -> Popen[bytes]:
        assert module == "pipeline.steps.child"
        assert line[0] == str(os.getpid())
        assert line[-1] == "--json"
        started.append(Popen([sys.executable, "-I", "-S", "-c", line[2]], start_new_session=True, **streams))
        return started[-1]

    monkeypatch.setattr(command, "launch", launch)
    return started


@pytest.mark.usefixtures("instead")
def test_the_answer_and_the_lines_before_it(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "import sys; print('half', file=sys.stderr); print('torn', end='', file=sys.stderr); print('{\"size\": 3}')"
    answer = run_command("quantize", [code], tmp_path, on_line=lines.append)
    assert answer.result == {"size": 3}
    assert answer.memory > 1 << 20
    assert lines == ["half"]


@pytest.mark.slow
@pytest.mark.usefixtures("instead")
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ('print(\'{"error": {"message": "the model is broken"}}\'); raise SystemExit(1)', "the model is broken"),
        ("import sys; print('sprig: no such option', file=sys.stderr); raise SystemExit(2)", "no such option"),
        ("raise SystemExit(3)", "it ended with status 3"),
        ("print('no JSON')", "the command did not answer with a JSON object"),
    ],
)
def test_a_failure_in_its_own_words(tmp_path: Path, code: str, said: str) -> None:
    with pytest.raises(SprigError) as e:
        run_command("quantize", [code], tmp_path)
    assert str(e.value) == said


@pytest.mark.slow
@pytest.mark.usefixtures("instead")
def test_one_that_is_killed_is_told_apart(tmp_path: Path) -> None:
    code = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    with pytest.raises(KilledError, match="the kernel killed it, probably for want of memory"):
        run_command("quantize", [code], tmp_path)


@pytest.mark.slow
def test_ctrl_c_lets_it_keep_what_it_has(tmp_path: Path, instead: list[Popen[bytes]]) -> None:
    kept = tmp_path / "kept"
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "print('ready', file=sys.stderr, flush=True)\n"
        "try: time.sleep(60)\n"
        f"except KeyboardInterrupt: open({str(kept)!r}, 'w').close()"
    )

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_command("quantize", [code], tmp_path, on_line=interrupt, end_seconds=30)
    assert kept.exists()
    assert instead[0].returncode == 0
    assert time.monotonic() - began < 30


def test_the_options_of_a_command_are_called_as_on_its_line() -> None:
    found = command_options("prune")
    assert found["vocab_size"].flag == "--vocab-size"
    assert found["vocab"].takes == "values"
    assert found["vocab"].path
    assert found["no_check"].takes == "nothing"
    assert command_options("distill")["for"].flag == "--for"
