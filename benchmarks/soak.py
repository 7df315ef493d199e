"""Agents in a bad neighbourhood: for as long as it is told, several of them answer in threads while their processes are killed,
stopped and flooded, runs are cancelled and left, and sessions change.

    .venv/bin/python benchmarks/soak.py [--seconds 1200] [--seed 1]

Nothing real is needed: the models are tiny and random. In the end it proves three things, or exits with status 1: nothing hung
(a watchdog prints where every thread stands), neither this process nor a worker that was never killed grew by more than 5 %
after the first quarter (of fifteen minutes or more), and no process, thread or descriptor is left.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import faulthandler
import gc
import json
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from agent import Agent, Engine, Limits, SprigError, tool  # noqa: E402
from agent.events import Done  # noqa: E402
from agent.sessions.store import Store  # noqa: E402
from agent.tools.result import ToolContext  # noqa: E402
from tests.fixtures.chat_ggufs import chat_model  # noqa: E402

HANG_SECONDS = 60  # that one action may take on a busy machine; each has a limit of 4 s
WARM = 0.25  # of the time, until memory is measured for the first time
LOOKS = 12  # at the memory from then on: the median of the last three is compared with that of the first three
GROWTH, MEMORY_SECONDS = 0.05, 900.0  # memory is judged in longer runs: SQLite alone takes minutes to fill its cache of 2 MB
WILD = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
LIMITS = Limits(tokens=60, rounds=3, seconds=4)
OPTIONS: dict[str, Any] = {"threads": 1, "batch": 128}


# What the agents are given to do.


@tool
def chatter(lines: int = 1) -> str:
    """Say very much."""
    return "much of it and more " * 50_000


@tool
def patient(context: ToolContext, seconds: float = 1.0) -> str:
    """Wait, and say on the way that it waits."""
    for _ in range(200):
        context.progress("still waiting")
        if context.cancelled.wait(0.02):
            break
    return "waited"


@tool(isolate=True)
def crash(hard: bool = True) -> str:
    """Die, and leave a child behind."""
    if os.fork() == 0:
        time.sleep(600)
    os._exit(3)


@tool(isolate=True)
def babble(times: int = 3) -> str:
    """Print very much beside the answer."""
    return "x" * 3_000_000


TOOLS = (chatter, patient, crash, babble)


def process(pid: int, field: str) -> int:
    """A figure of /proc/PID/status in bytes; 0 when the process is gone."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024
    return 0


def family(parent: int) -> dict[int, str]:
    """All living descendants of a process, and what they run."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            if fields[0] not in (b"Z", b"X"):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                parents[int(entry.name)] = int(fields[1]), line
    found: dict[int, str] = {}
    while more := {p: line for p, (its, line) in parents.items() if p not in found and (its == parent or its in found)}:
        found |= more
    return found


@dataclass
class Watch:
    """What each thread does and since when; and how the threads are brought to a rest so that memory can be measured."""

    doing: dict[str, tuple[str, float]] = field(default_factory=dict)
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    over: threading.Event = field(default_factory=threading.Event)
    pause: threading.Event = field(default_factory=threading.Event)
    failed: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def action(self, who: str, what: str) -> Iterator[None]:
        with self.lock:
            self.doing[who] = what, time.monotonic()
        try:
            yield
        except SprigError as e:
            self.count(f"{what}: {type(e).__name__}")
        except BaseException as e:
            self.failed.append(f"{who}, {what}: {type(e).__name__}: {e}")
            self.over.set()
            raise
        finally:
            with self.lock:
                self.doing.pop(who, None)

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def late(self) -> list[str]:
        now = time.monotonic()
        with self.lock:
            return [
                f"{who}: {what} for {now - began:.0f} s"
                for who, (what, began) in self.doing.items()
                if now - began > HANG_SECONDS
            ]

    def rest(self) -> None:
        """Wait until no agent does anything."""
        self.pause.set()
        while self.doing and not self.over.is_set():
            time.sleep(0.05)


class Talker:
    """One agent and its thread, which does one thing after the other as its seed says."""

    def __init__(self, name: str, seed: int, watch: Watch, make: Callable[[], Agent], store: Store, *, replace: bool) -> None:
        self.name, self.watch, self.make, self.store, self.replace = name, watch, make, store, replace
        self.random = random.Random(seed)
        self.agent = make()
        self.thread = threading.Thread(target=self.live, name=name, daemon=True)

    def live(self) -> None:
        acts = [self.ask, self.leave, self.cancel, self.hurry, self.flood, self.call, self.call, self.change, self.renew]
        while not self.watch.over.is_set():
            if self.watch.pause.is_set():
                time.sleep(0.05)
                continue
            act = self.random.choice(acts)
            with self.watch.action(self.name, act.__name__):
                act()
        with self.watch.action(self.name, "close"):
            self.agent.close()

    def run(self, what: str, text: str, **given: Any) -> None:
        result = self.agent.run(text, **{"limits": LIMITS, **given})
        self.watch.count(f"{what}: {result.reason}")

    def text(self, most: int = 30) -> str:
        return " ".join(self.random.choice(["rain", "sun", "moon", "stars"]) for _ in range(self.random.randint(1, most)))

    def ask(self) -> None:
        self.run("ask", self.text())

    def leave(self) -> None:
        count = self.random.randint(1, 12)
        for i, event in enumerate(self.agent.stream(self.text(), limits=LIMITS)):
            if i >= count or isinstance(event, Done):
                break
        self.watch.count("leave: left")

    def cancel(self) -> None:
        timer = threading.Timer(self.random.random() * 0.3, self.agent.cancel)
        timer.daemon = True
        timer.start()
        self.run("cancel", self.text(), limits=Limits(tokens=2000, seconds=4))

    def hurry(self) -> None:
        self.run("hurry", self.text(), limits=Limits(tokens=2000, seconds=self.random.choice([0.01, 0.1, 0.5])))

    def flood(self) -> None:
        self.run("flood", self.text(self.random.choice([100, 300, 20_000])))

    def call(self) -> None:
        self.run("call", self.text(), tool_choice=self.random.choice([t.name for t in TOOLS]))

    def change(self) -> None:
        way = self.random.randrange(4)
        if way == 0:
            self.agent.reset()
        elif way == 1 or self.agent.session is None:
            self.agent.resume(self.store.create())
        elif way == 2:
            self.agent.branch(None)
        else:
            self.agent.resume(self.agent.session)

    def renew(self) -> None:
        """Another agent in its place, with an engine of its own where it has one."""
        if self.replace and self.random.random() < 0.5:
            self.agent.close()
            self.agent = self.make()


def harm(watch: Watch, seed: int, victims: Callable[[], list[int]]) -> None:
    """Kill and stop processes, now and then."""
    dice = random.Random(seed)
    while not watch.over.wait(0.1 + dice.random()):
        pids = sorted(victims())
        if not pids or watch.pause.is_set():
            continue
        pid, way = dice.choice(pids), dice.choice(["kill", "stop", "stop for a while", "stop for a while"])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if way == "kill" else signal.SIGSTOP)
            watch.count(f"a process: {way}")
        if way == "stop for a while":
            watch.over.wait(dice.random() * 1.5)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def measured(watch: Watch, steady: Engine) -> dict[str, int]:
    """Memory at rest: of this process, and of the worker that is never harmed."""
    watch.rest()
    gc.collect()
    with contextlib.suppress(AttributeError):  # not in every C library
        ctypes.CDLL(None).malloc_trim(0)  # what is free and kept for later is no growth
    found = {"this process": process(os.getpid(), "VmRSS"), "the worker": process(steady._connection.child.pid, "VmRSS")}
    watch.pause.clear()
    print(*(f"{name} {size / 1e6:.1f} MB" for name, size in found.items()), sep=", ", file=sys.stderr, flush=True)
    return found


def guard(watch: Watch) -> None:
    """End everything when an action takes too long, and show where each thread stands."""
    while not watch.over.wait(1.0):
        if late := watch.late():
            print("HANGS:", *late, sep="\n  ", file=sys.stderr, flush=True)
            faulthandler.dump_traceback(all_threads=True)
            os._exit(1)


def soak(seconds: float, seed: int, folder: Path) -> int:
    """Returns the exit status."""
    watch = Watch()
    path = chat_model(folder / "tiny.gguf", "hermes")
    gc.collect()
    threads, descriptors = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    with (
        Store() as store,
        Engine(path, context=4096, conversations=3, **OPTIONS) as shared,
        Engine(path, context=2048, **OPTIONS) as steady,
    ):
        makes: list[tuple[Callable[[], Agent], bool]] = [
            *[(lambda: Agent(shared, tools=TOOLS, sampling=WILD), True)] * 3,
            *[(lambda: Agent(steady, tools=TOOLS, sampling=WILD), False)] * 2,
            (lambda: Agent(path, tools=TOOLS, sampling=WILD, engine={"context": 2048, **OPTIONS}), True),
        ]
        talkers = [
            Talker(f"agent {i}", seed * 1000 + i, watch, make, store, replace=replace) for i, (make, replace) in enumerate(makes)
        ]

        def victims() -> list[int]:
            spared = {steady._connection.child.pid}
            return [pid for pid, line in family(os.getpid()).items() if pid not in spared and "agent." in line]

        helpers = [threading.Thread(target=guard, args=(watch,), daemon=True)]
        helpers.append(threading.Thread(target=harm, args=(watch, seed, victims), daemon=True))
        for thread in (*helpers, *(talker.thread for talker in talkers)):
            thread.start()
        began, looks = time.monotonic(), []
        for i in range(LOOKS):
            watch.over.wait(max(0.0, seconds * (WARM + (1 - WARM) * i / (LOOKS - 1)) - (time.monotonic() - began)))
            looks.append(measured(watch, steady))
        watch.over.set()
        for thread in (*helpers, *(talker.thread for talker in talkers)):
            thread.join(HANG_SECONDS)
            if thread.is_alive():
                watch.failed.append(f"{thread.name} does not end")
                faulthandler.dump_traceback(all_threads=True)
        restarts = {"shared": shared.restarts, "steady": steady.restarts}
    return report(watch, looks, restarts, threads, descriptors, time.monotonic() - began)


def report(
    watch: Watch,
    looks: list[dict[str, int]],
    restarts: dict[str, int],
    threads: int,
    descriptors: int,
    seconds: float,
) -> int:
    """Print what was found, one JSON object; the exit status."""
    end = time.monotonic() + 10
    while (family(os.getpid()) or threading.active_count() > threads) and time.monotonic() < end:
        time.sleep(0.05)
    gc.collect()
    wrong = list(watch.failed)
    wrong += [f"left behind: {pid} {line}" for pid, line in family(os.getpid()).items()]
    first, last = ({name: int(median(look[name] for look in part)) for name in looks[0]} for part in (looks[:3], looks[-3:]))
    growth = {name: last[name] / max(1, first[name]) - 1 for name in first}
    if restarts["steady"]:
        wrong.append("the worker that nobody harmed was started again")
    if seconds >= MEMORY_SECONDS:
        wrong += [f"{name} grew by {grown:.1%}" for name, grown in growth.items() if grown > GROWTH]
    if (now := threading.active_count()) > threads:
        wrong.append(f"{now - threads} threads left: {[t.name for t in threading.enumerate()]}")
    if (count := len(list(Path("/proc/self/fd").iterdir()))) > descriptors + 2:  # what a first import opens may stay
        wrong.append(f"{count - descriptors} descriptors left")
    memory = {name: [round(first[name] / 1e6, 1), round(last[name] / 1e6, 1)] for name in first}
    found = {
        "seconds": round(seconds, 1),
        "memory MB, first and last": memory,
        "restarts": restarts,
        "happened": dict(sorted(watch.counts.items())),
    }
    print(json.dumps({**found, "wrong": wrong}, indent=1))
    return 1 if wrong else 0


def main() -> None:
    parser = argparse.ArgumentParser(description="Agents whose processes are killed, stopped and flooded.")
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    if "MALLOC_ARENA_MAX" not in os.environ:  # the C library has eight heaps for each core, which fill in turn
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "MALLOC_ARENA_MAX": "1"})
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="sprig-soak-") as folder:
        os.environ["SPRIG_HOME"] = f"{folder}/home"
        status = soak(chosen.seconds, chosen.seed, Path(folder))
    sys.exit(status)


if __name__ == "__main__":
    main()
