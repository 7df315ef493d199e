"""A tool that hangs, raises, exits, forks or floods: each call comes back in time with one line, and the script goes on."""

from __future__ import annotations

import asyncio
import contextvars
import faulthandler
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.messages import ToolCall
from agent.tools.define import as_tool, tool
from agent.tools.result import ToolContext, ToolError, ToolResult
from agent.tools.run import progressing
from tests.fixtures.paths import ROOT


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def wait_until_gone(pids: list[int], seconds: float = 3.0) -> list[int]:
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(map(alive, pids)):
        time.sleep(0.01)
    return [pid for pid in pids if alive(pid)]


def raised(error: BaseException) -> str:
    @tool
    def f() -> str:
        raise error

    result = f.invoke({})
    assert not result.ok
    return result.text


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad\nvalue\x1b[2J"), "ValueError: bad value"),
        (ToolError("the valve is stuck"), "the valve is stuck"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (MemoryError(), "MemoryError"),
        (GeneratorExit(), "GeneratorExit"),
        (KeyError("k"), "KeyError: 'k'"),
        (Unprintable(), "Unprintable"),
        (asyncio.CancelledError(), "CancelledError"),
        (OSError(2, "No such file", "x"), "FileNotFoundError: [Errno 2] No such file: 'x'"),
    ],
)
def test_whatever_is_raised_is_one_line_for_the_model(error: BaseException, text: str) -> None:
    assert raised(error) == text


def test_a_message_without_end_is_cut() -> None:
    assert len(raised(ValueError("x" * 10_000_000))) <= 500


def test_endless_recursion_and_unprintable_results() -> None:
    @tool
    def deep(n: int) -> Any:
        return deep(n + 1)

    @tool
    def odd() -> Any:
        return Strange()

    class Strange:
        def __str__(self) -> str:
            raise ValueError("never")

    assert deep.invoke({"n": 0}).text.startswith("RecursionError")
    assert odd.invoke({}).text == "ValueError: never"


def test_sync_and_async_and_their_seconds() -> None:
    @tool
    async def later(n: int) -> int:
        await asyncio.sleep(0.05)
        return n + 1

    @tool
    def now(n: int) -> int:
        return n + 1

    result = later.invoke({"n": 1})
    assert (result.ok, result.text) == (True, "2")
    assert 0.05 <= result.seconds < 2
    assert now.invoke({"n": 1}).text == "2"


def test_context_variables_reach_the_function() -> None:
    who = contextvars.ContextVar("who", default="nobody")
    who.set("the script")

    @tool
    def f() -> str:
        return who.get()

    assert f.invoke({}).text == "the script"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sync", "async", "isolated"])
def test_a_hanging_tool_is_left_at_its_deadline(kind: str) -> None:
    ended = threading.Event()

    def sync(context: ToolContext) -> None:
        context.cancelled.wait(20)
        ended.set()

    async def never() -> None:
        try:
            await asyncio.sleep(20)
        finally:
            ended.set()

    def stubborn() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(20)

    function: Any = {"sync": sync, "async": never, "isolated": stubborn}[kind]
    late = tool(timeout=0.2, isolate=kind == "isolated")(function)
    began = time.monotonic()
    result = late.invoke({})
    assert time.monotonic() - began < 2
    assert (result.ok, result.text) == (False, "no result within 0.2 s")
    assert kind == "isolated" or ended.wait(2), "it was told that nobody waits any more"


def test_what_a_late_tool_answers_when_it_is_told_to_stop_is_not_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(threading.Event):
        """Whoever is told to stop has ended before anybody looks."""

        def set(self) -> None:
            super().set()
            time.sleep(0.1)

    def obedient(context: ToolContext) -> str:
        context.cancelled.wait(20)
        return "stopped"

    late = tool(timeout=0.1)(obedient)
    monkeypatch.setattr("agent.tools.run.threading.Event", Slow)
    result = late.invoke({}, ToolContext())
    assert (result.ok, result.text) == (False, "no result within 0.1 s")


@pytest.mark.parametrize("kind", ["sync", "async", "isolated"])
def test_cancelling_from_another_thread_takes_effect_at_once(kind: str) -> None:
    def sync() -> None:
        time.sleep(5)

    async def never() -> None:
        await asyncio.sleep(5)

    function: Any = never if kind == "async" else sync
    context = ToolContext()
    threading.Timer(0.1, context.cancelled.set).start()
    began = time.monotonic()
    result = tool(isolate=kind == "isolated")(function).invoke({}, context)
    assert time.monotonic() - began < 1
    assert (result.ok, result.text) == (False, "cancelled")
    assert as_tool(function).invoke({}, context).text == "cancelled"


@pytest.mark.slow
def test_an_isolated_tool_may_do_what_it_likes_to_its_process() -> None:
    def run(how: str) -> Any:
        if how == "exit":
            os._exit(7)
        if how == "crash":
            faulthandler.disable()
            os.kill(os.getpid(), signal.SIGSEGV)
        if how == "sys.exit":
            sys.exit(3)
        if how == "stdin":
            return os.read(0, 100).decode() + "nothing to read"
        if how == "big":
            return "x" * 1_000_000
        return {"pid": os.getpid()}

    named = tool(isolate=True, timeout=20)(run)
    assert named.invoke({"how": "exit"}).text == "the tool's process exited with status 7 and gave no result"
    assert named.invoke({"how": "crash"}).text == "the tool's process died of SIGSEGV"
    assert named.invoke({"how": "sys.exit"}).text == "SystemExit: 3"
    big = named.invoke({"how": "big"})
    assert big.ok
    assert big.cut > 700_000
    assert named.invoke({"how": "stdin"}).text == "nothing to read"
    fine = named.invoke({"how": "fine"})
    assert fine.data["pid"] != os.getpid()


def test_what_an_isolated_tool_leaves_behind_is_ended(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    @tool(isolate=True, timeout=20)
    def litter(count: int) -> str:
        """Children, orphans, sessions of their own, deaf to SIGTERM, with the answer's pipe still open."""
        for i in range(count):
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                if i % 2:
                    os.setsid()
                if i % 3 == 0 and os.fork():
                    os._exit(0)
                with pids.open("a") as f:
                    f.write(f"{os.getpid()}\n")
                time.sleep(60)
                os._exit(0)
        while not pids.exists() or len(pids.read_text().split()) < count:
            time.sleep(0.01)
        return "done with that"

    began = time.monotonic()
    result = litter.invoke({"count": 12})
    assert (result.ok, result.text) == (True, "done with that")
    assert time.monotonic() - began < 5
    left = [int(line) for line in pids.read_text().split()]
    assert len(left) == 12
    assert wait_until_gone(left) == []


@pytest.mark.slow
def test_a_fork_bomb_ends_with_its_deadline(tmp_path: Path) -> None:
    """Bounded here to 60 processes, as root is held to no limit on processes."""
    log = tmp_path / "pids"

    @tool(isolate=True, timeout=0.5)
    def bomb() -> None:
        for _ in range(60):
            if os.fork() == 0:
                os.setsid()
                with log.open("a") as f:
                    f.write(f"{os.getpid()}\n")
                while True:
                    time.sleep(1)
        time.sleep(60)

    began = time.monotonic()
    assert bomb.invoke({}).text == "no result within 0.5 s"
    assert time.monotonic() - began < 5
    assert wait_until_gone([int(pid) for pid in log.read_text().split()]) == []


@pytest.mark.slow
def test_nothing_is_left_open_by_many_calls() -> None:
    @tool(isolate=True)
    def f(n: int) -> int:
        return n

    f.invoke({"n": 0})
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert [f.invoke({"n": n}).text for n in range(10)] == [str(n) for n in range(10)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_calls_from_many_threads_at_once() -> None:
    @tool(isolate=True)
    async def f(n: int) -> int:
        return n * n

    results: dict[int, str] = {}
    threads = [threading.Thread(target=lambda n=n: results.update({n: f.invoke({"n": n}).text})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == {n: str(n * n) for n in range(8)}


WATCHED = """
import os, sys, threading, time
from agent import tool

forking = []
os.register_at_fork(before=lambda: (forking.append(1), time.sleep(0.05)), after_in_parent=forking.pop, after_in_child=forking.pop)

def one_at_a_time(event, arguments):
    if event == "os.fork" and forking:
        raise RuntimeError("os.fork is unsafe now")

sys.addaudithook(one_at_a_time)

@tool(isolate=True)
def square(n: int) -> int:
    return n * n

said = []
threads = [threading.Thread(target=lambda n=n: said.append(square.invoke({"n": n}).text)) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*said)
"""


@pytest.mark.slow
def test_calls_beside_a_library_that_refuses_two_forks_at_once() -> None:
    """As filelock does, which whoever imports huggingface_hub has."""
    done = subprocess.run([sys.executable, "-c", WATCHED], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert sorted(done.stdout.split()) == ["0", "1", "4", "9"], done.stderr


def test_a_call_that_does_not_end_when_it_is_cancelled_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool of another make may forget to look: the run does not wait for it."""
    monkeypatch.setattr("agent.tools.run._LATE", 0.1)
    cancelled, forgetful = threading.Event(), threading.Event()
    threading.Timer(0.05, cancelled.set).start()

    def invoke(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        forgetful.wait(30)
        return ToolResult(True, "too late")

    start = time.monotonic()
    (result,) = progressing(invoke, ToolCall("forgetful", {}, "1"), ToolContext(cancelled), None)
    forgetful.set()
    assert isinstance(result, ToolResult)
    assert (result.ok, result.text) == (False, "cancelled")
    assert time.monotonic() - start < 5
