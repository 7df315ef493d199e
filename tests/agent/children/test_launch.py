"""Child processes: they run this installation's modules, and it is told in words how they ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agent.children.launch import PACKAGES, cause, launch, run_module, tail
from agent.tools.isolate import run_isolated

pytestmark = pytest.mark.usefixtures("started")


def test_how_a_child_ended_is_told_in_words() -> None:
    assert cause(0) == cause(3) == ""
    assert "want of memory" in cause(-signal.SIGKILL)
    assert cause(-signal.SIGABRT) == "it aborted"
    assert cause(-signal.SIGBUS) == "it died of SIGBUS"
    assert cause(-200) == "signal 200"


def test_a_module_of_this_installation_runs_whatever_the_folder_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "__init__.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.chdir(tmp_path)
    ended = run_module("agent.children.launch", [], b"", 60)
    assert (ended.status, ended.output, ended.log, ended.timed_out) == (0, b"", "", False)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError):
        launch("agent.children.launch", [], {}, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("bare", [False, True])
def test_a_child_that_fails_leaves_its_last_words(bare: bool) -> None:
    with tempfile.TemporaryFile() as log:
        child = launch(
            "agent.no_such_module", ["x"], {"PATH": "/usr/bin"}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            bare=[] if bare else None,
        )  # fmt: skip
        assert child.wait(60) == 1
        assert "no_such_module" in tail(log)
        log.write(b"x" * 100_000 + b"\xffend")
        log.flush()
        assert tail(log).endswith("x�end")
        assert len(tail(log)) < 70_000
    assert (Path(PACKAGES) / "agent" / "children" / "launch.py").exists()


def test_no_tool_is_forked_while_a_child_is_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fork would hold the pipe by which the start is seen to be done, and so hold up whoever starts."""
    order: list[str] = []
    begun = threading.Event()
    start, fork = subprocess.Popen, os.fork

    def slow_start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        begun.set()
        time.sleep(0.1)
        order.append("started")
        return start(*args, **options)

    def noted_fork() -> int:
        order.append("forked")
        return fork()

    monkeypatch.setattr("agent.children.launch.Popen", slow_start)
    monkeypatch.setattr(os, "fork", noted_fork)
    starting = threading.Thread(target=run_module, args=("agent.children.launch", [], b"", 60))
    starting.start()
    assert begun.wait(20)
    assert run_isolated(lambda: "done", {}, threading.Event(), 60).text == "done"
    starting.join(20)
    assert order == ["started", "forked"]
