"""The chat on a terminal of 100x30: what it costs while a model speaks and at rest, how soon it is there, how soon a key shows.

    .venv/bin/python benchmarks/chat.py [MODEL]

Real programs in a real pseudo-terminal. The peer is what somebody would write instead with Textual's own Markdown widget and its
stream: the same words as fast, nothing else. MODEL is a GGUF; by default SmolLM2-135M-Instruct as Q8_0.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.chat_terminal import Terminal, p95  # noqa: E402
from benchmarks.chat_text import RATE, answer  # noqa: E402

RUNS = 5
WINDOW = 15.0  # seconds over which a load is taken
PRESSES = 40
SMALL, LARGE = 20, 2000  # messages of a session
PAGES = 30
READY = "Ask something"  # what the prompt of both programs says, and our first frame
WHOLE = "names a file"  # what only the application itself says
PAGE_UP, ESCAPE, CLEAR = "\x1b[5~", "\x1b", "\x15"

PACED = [sys.executable, "-m", "benchmarks.chat_paced"]
PEER = [sys.executable, "-m", "benchmarks.chat_peer"]


@dataclass(frozen=True)
class Place:
    """Where a program runs: its settings, its sessions, the model."""

    home: Path
    model: Path

    @property
    def env(self) -> dict[str, str]:
        """Byte code is kept, as where Sprig is installed, but not in the checkout."""
        cache = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(self.home / "bytecode")}
        return {"SPRIG_HOME": str(self.home), "SPRIG_BENCH_NODES": str(self.home / "nodes"), **cache}

    def chat(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "sprig", "chat", "-m", str(self.model), *options]

    def run(self, command: list[str]) -> Terminal:
        return Terminal(command, self.env)


def row(name: str, ours: str, peer: str = "", ratio: float | None = None, asked: str = "") -> None:
    print(f"| {name} | {ours} | {peer} | {f'**{ratio:.2f}**' if ratio is not None else ''} | {asked} |", flush=True)


def both(seconds: list[float], unit: float = 1.0, digits: int = 2) -> str:
    """Best and median."""
    return f"{min(seconds) * unit:.{digits}f} / {statistics.median(seconds) * unit:.{digits}f}"


# One program, or two in turn.


def start(place: Place) -> None:
    """From the command to the first frame, and to the application that takes the keys; the model is not waited for."""
    first, whole, worked, peer, work = [], [], [], [], []
    for number in range(RUNS + 1):
        with place.run(place.chat()) as terminal:
            there, spent = terminal.shows(WHOLE)
            frame, _ = terminal.shows(READY)
        with place.run(PEER) as terminal:
            shown, cores = terminal.shows(READY)
        if number:  # the first one reads and compiles the files
            for figures, figure in ((first, frame), (whole, there), (worked, spent), (peer, shown), (work, cores)):
                figures.append(figure)
    row("`sprig chat -m FILE` to its first frame, s", both(first), both(peer), middle(first, peer), "< 0.5 s")
    row("to the whole application, s", both(whole), both(peer), middle(whole, peer))
    row("the same, time of a core, s", both(worked), both(work), middle(worked, work))


def middle(ours: list[float], peers: list[float]) -> float:
    """Median of the ratios of runs that stood beside each other."""
    return statistics.median(a / b for a, b in zip(ours, peers, strict=True))


def loads(place: Place) -> None:
    """What the processes take of one core: at rest, and while 20 tokens a second come."""
    rest: tuple[list[float], list[float]] = ([], [])
    stream: tuple[list[float], list[float]] = ([], [])
    keys: tuple[list[float], list[float]] = ([], [])
    for _ in range(3):
        for which, command in enumerate((PACED, PEER)):
            with place.run(command) as terminal:
                terminal.shows(READY)
                terminal.quiet()
                rest[which].append(terminal.load(WINDOW))
                speak(terminal)
                stream[which].append(terminal.load(WINDOW))
                keys[which].extend(terminal.presses(PRESSES // 2))
    compare("at rest, % of one core", rest, "near 0")
    compare(f"while {RATE:.0f} tokens/s come, % of one core", stream, "<= 6")
    row(
        f"key to echo while {RATE:.0f} tokens/s come, median and p95, ms", key_times(keys[0]), key_times(keys[1]),
        statistics.median(keys[0]) / statistics.median(keys[1]),
    )  # fmt: skip


def compare(name: str, loads: tuple[list[float], list[float]], asked: str) -> None:
    ratio = statistics.median(a / b if b else 1.0 for a, b in zip(*loads, strict=True))
    row(name, both(loads[0], 100, 1), both(loads[1], 100, 1), ratio, asked)


def key_times(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.0f} / {p95(seconds) * 1e3:.0f}"


def speak(terminal: Terminal) -> None:
    """Ask; then let what happens only once, like the first code block, be over."""
    terminal.type("Tell me about the garden\r")
    terminal.rest(8.0)


def keys_while_decoding(place: Place) -> None:
    """The real model on all the cores that it takes, and the same with the model at rest."""
    with place.run(place.chat("--tool", "none", "--no-think", "-c", "8192")) as terminal:
        terminal.shows("ready")
        terminal.quiet()
        idle = terminal.presses(PRESSES)
        decoding: list[float] = []
        for _ in range(8):  # an answer of a small model may be over before all keys were pressed
            terminal.type("Write a very long story about a robot who lives in a garden, with many chapters.\r")
            terminal.shows("writing")
            decoding += presses_until_silent(terminal, PRESSES - len(decoding))
            if len(decoding) >= PRESSES:
                break
    row(
        f"key to echo while the model decodes, median and p95 of {len(decoding)}, ms; beside the model at rest",
        key_times(decoding), key_times(idle), statistics.median(decoding) / statistics.median(idle), "< 50",
    )  # fmt: skip


def presses_until_silent(terminal: Terminal, count: int) -> list[float]:
    found: list[float] = []
    terminal.press()
    while len(found) < count and "writing" in terminal.screen():
        terminal.rest(0.1 + 0.017 * (len(found) % 5))
        found.append(terminal.press())
    terminal.type(ESCAPE)
    terminal.rest(0.5)  # or it would be the beginning of another key
    terminal.shows("ready")
    terminal.type(CLEAR)
    terminal.rest(0.5)
    return found


# Long sessions.


@dataclass
class Seen:
    """Of one session. Seconds, and parts of a core."""

    opened: list[float]
    page: list[float]
    key: list[float]
    load: list[float]
    nodes: list[int]


def sessions(place: Place) -> None:
    """A session of 2,000 messages beside one of 20."""
    seen = {SMALL: Seen([], [], [], [], []), LARGE: Seen([], [], [], [], [])}
    for _ in range(3):
        for count, of in seen.items():
            look(place, kept(place.home, count), of)

    def line(name: str, value: Callable[[Seen], list[float]], unit: float, digits: int, asked: str = "") -> None:
        a, b = value(seen[LARGE]), value(seen[SMALL])
        row(name, both(a, unit, digits), both(b, unit, digits), statistics.median(a) / statistics.median(b), asked)

    asked = "no slower"
    line(f"{LARGE:,} messages beside {SMALL}: start to the end of the conversation, s", lambda s: s.opened, 1, 2, asked)
    line("the same: a page up, ms", lambda s: s.page, 1e3, 0, asked)
    line("the same: key to echo, ms", lambda s: s.key, 1e3, 0, asked)
    line(f"the same: while {RATE:.0f} tokens/s come, % of one core", lambda s: s.load, 100, 1, asked)
    nodes = [max(seen[count].nodes) for count in (LARGE, SMALL)]
    row("the same: widgets, after all pages", f"{nodes[0]}", f"{nodes[1]}", None, "bounded")


def kept(home: Path, count: int) -> str:
    """A conversation in the store; its id."""
    from agent.messages import Message
    from agent.sessions.store import Store

    with Store(home / "sessions.db") as store:
        session = store.create(model="paced", title=f"{count} messages")
        for number in range(count // 2):
            session.append(Message("user", f"Question {number}: what does bed {number % 8 + 1} need?"))
            session.append(Message("assistant", answer(number) + (f"\n\nLast of {count}" if number == count // 2 - 1 else "")))
        return session.info.id


def look(place: Place, session: str, of: Seen) -> None:
    with place.run([*PACED, session]) as terminal:
        of.opened.append(terminal.shows("Last of")[0])
        terminal.quiet()
        of.key.append(statistics.median(terminal.presses(PRESSES // 2)))
        pages = []
        for _ in range(PAGES):
            before = time.perf_counter()
            terminal.type(PAGE_UP)
            if not terminal.comes(0.3):
                break  # the beginning of a short one
            pages.append(terminal.written[-1][0] - before)
            terminal.rest(0.2)
        of.page.append(statistics.median(pages))
        of.nodes.append(nodes(place, terminal))
        speak(terminal)
        of.load.append(terminal.load(WINDOW))


def nodes(place: Place, terminal: Terminal) -> int:
    path = Path(place.env["SPRIG_BENCH_NODES"])
    path.unlink(missing_ok=True)
    os.kill(terminal.process.pid, signal.SIGUSR1)
    while not (path.is_file() and path.read_text()):
        terminal.rest(0.1)
    return int(path.read_text())


def main() -> None:
    from benchmarks.agent import default_model

    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        model = Path(sys.argv[1]) if len(sys.argv) > 1 else default_model(home)
        place = Place(home, model.absolute())
        print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}, {model.name}.\n")
        print("Two figures are best and median of several, where nothing else is said.\n")
        print("| what | sprig chat | peer | ratio | asked |\n|---|---|---|---|---|")
        start(place)
        loads(place)
        keys_while_decoding(place)
        sessions(place)


if __name__ == "__main__":
    main()
