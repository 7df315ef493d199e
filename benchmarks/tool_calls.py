"""How well a small model calls tools, with the constraint and without.

    .venv/bin/python benchmarks/tool_calls.py [MODEL]

Sixty wishes that one call fulfils (right tool, right arguments), twenty that need none. Greedy, one answer each, in one process.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent import Agent, CallReady, CallRefused, Engine, Limits  # noqa: E402
from benchmarks.tool_tasks import CALLS, NONE, TOOLS, Task, right  # noqa: E402


@dataclass(frozen=True)
class Score:
    """Counts over all tasks of one setting."""

    right: int
    tool: int
    valid: int
    called: int
    restrained: int
    seconds: float
    wrong: tuple[str, ...]


def measure(engine: Engine, *, constrain: bool, choice: str = "auto") -> Score:
    started = time.perf_counter()
    counts: Counter[str] = Counter()
    wrong = []
    for task in (*CALLS, *NONE):
        call, refused = first_call(engine, task, constrain=constrain, choice=choice)
        if task.tool is None:
            counts["restrained"] += call is None
            continue
        if call is None:
            wrong.append(f"{task.wish} -> no call")
            continue
        counts["called"] += 1
        counts["valid"] += not refused
        counts["tool"] += call.name == task.tool
        fits = right(task, call.name, call.arguments)
        counts["right"] += fits
        if not fits:
            wrong.append(f"{task.wish} -> {call.name} {dict(call.arguments)}")
    spent = time.perf_counter() - started
    return Score(counts["right"], counts["tool"], counts["valid"], counts["called"], counts["restrained"], spent, tuple(wrong))


def first_call(engine: Engine, task: Task, *, constrain: bool, choice: str) -> tuple[object, bool] | tuple[None, bool]:
    """The first call of an answer, and whether it was refused as invalid."""
    agent = Agent(
        engine, tools=TOOLS, constrain=constrain, limits=Limits(rounds=1, tokens=80), sampling={"temperature": 0, "seed": 1},
    )  # fmt: skip
    call, refused = None, False
    try:
        for event in agent.stream(task.wish, tool_choice=choice):
            if isinstance(event, CallReady) and call is None:
                call = event.call
            if isinstance(event, CallRefused) and call is not None:
                refused = True
    finally:
        agent.close()
    return call, refused


def main() -> None:
    import tempfile

    from benchmarks.agent import default_model

    named = [a for a in sys.argv[1:] if a != "-v"]
    with tempfile.TemporaryDirectory() as folder:
        model = named[0] if named else str(default_model(Path(folder)))
    rows = []
    with Engine(model, context=4096, conversations=2) as engine:
        name = engine.file.name
        for label, constrain, choice in (
            ("auto, constraint on", True, "auto"), ("auto, constraint off", False, "auto"),
            ("required, constraint on", True, "required"),
        ):  # fmt: skip
            score = measure(engine, constrain=constrain, choice=choice)
            rows.append((label, score))
            if "-v" in sys.argv:
                print(label, *score.wrong, sep="\n  ")
    print(f"\n{name}: {len(CALLS)} tasks with one call, {len(NONE)} without\n")
    print("| setting | right call | right tool | valid call | any call | restraint | seconds |\n|---|---|---|---|---|---|---|")
    for label, s in rows:
        n, m = len(CALLS), len(NONE)
        restraint = "-" if label.startswith("required") else f"{s.restrained}/{m}"
        print(f"| {label} | {s.right}/{n} | {s.tool}/{n} | {s.valid}/{n} | {s.called}/{n} | {restraint} | {s.seconds:.0f} |")


if __name__ == "__main__":
    main()
