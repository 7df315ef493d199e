"""A parent that is killed leaves nothing behind: no model, embedding model, template, command or tool, though all are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.paths import ROOT
from tests.fixtures.patience import PATIENCE
from tests.fixtures.tiny import llama

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")

PARENT = '''
import sys, threading, time
from pathlib import Path
from agent.agent import Agent
from agent.children.process import run_command
from agent.children.rules import Rules
from agent.children.sandbox import system_paths
from agent.embedding.embedder import Embedder
from agent.limits import Limits
from agent.tools.define import tool

made = []
def make():
    made.append(Agent(sys.argv[1], engine={"context": 512, "threads": 1}, limits=Limits(tokens=2)))
    made[0].run("Begin.")
thread = threading.Thread(target=make)  # it is not the one that started the worker: its end must mean nothing
thread.start()
thread.join()
time.sleep(0.05)
made[0].run("Hello.")
assert made[0].engine.restarts == 0
embedder = Embedder(sys.argv[2], threads=1)
embedder.wait()
folder = Path(sys.argv[1]).parent
read = Rules(read=(*system_paths(), str(folder)))
threading.Thread(target=run_command, args=(["sleep", "60"], folder, read), kwargs={"seconds": 60}, daemon=True).start()

@tool(isolate=True)
def slow():
    """Wait."""
    time.sleep(60)
threading.Thread(target=slow.invoke, args=({},), daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
'''


def family(parent: int) -> dict[int, str]:
    """All descendants of a process, and what they run."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, IndexError):
            continue
        if entry.name.isdigit() and fields[0] != b"Z":
            parents[int(entry.name)] = int(fields[1]), line
    found: dict[int, str] = {}
    while more := {p: line for p, (its, line) in parents.items() if p not in found and (its == parent or its in found)}:
        found |= more
    return found


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (OSError, IndexError):
        return False


@pytest.mark.slow
def test_nothing_outlives_a_parent_that_was_killed(tmp_path: Path) -> None:
    models = str(chat_model(tmp_path / "m.gguf", "hermes")), str(llama(tmp_path / "mean.gguf", llama__pooling_type=1))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "SPRIG_HOME": str(tmp_path / "home")}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *models], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    ) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"ready\n"
            children = wait_for_family(parent.pid)
            for child in children:
                os.kill(child, signal.SIGSTOP)
        finally:
            parent.kill()
            parent.wait(20)
    try:
        end = time.monotonic() + 5 * PATIENCE
        while left := {child: line for child, line in children.items() if alive(child)}:
            assert time.monotonic() < end, left
            time.sleep(0.02)
    finally:
        for child in children:
            if alive(child):
                os.kill(child, signal.SIGKILL)


def wait_for_family(parent: int) -> dict[int, str]:
    """Two models' workers, a template's process, a command and an isolated tool, each of the last two below a supervisor."""
    wanted = ("agent.engine.worker", "agent.embedding.worker", "agent.templates.server", "sleep 60")
    end = time.monotonic() + 20
    while True:
        found = family(parent)
        lines = " ".join(found.values())
        if all(word in lines for word in wanted) and len(found) >= 7:
            return found
        assert time.monotonic() < end, "\n".join(found.values())
        time.sleep(0.05)
