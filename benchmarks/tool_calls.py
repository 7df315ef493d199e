"""How well a small model calls tools, with the constraint and without.

    .venv/bin/python benchmarks/tool_calls.py [MODEL]

Sixty wishes that one call fulfils (right tool, right arguments), twenty that need none. Greedy, one answer each, in one process.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent import Engine  # noqa: E402
from pipeline.evaluate.tasks.call_tasks import CALLS, NONE  # noqa: E402
from pipeline.evaluate.tasks.calls import CallAnswer, answer_wishes  # noqa: E402


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


def measure(engine: Engine, *, constrain: bool, choice: Literal["auto", "required"] = "auto") -> Score:
    started = time.perf_counter()
    answers = answer_wishes(engine, (*CALLS, *NONE), constrain=constrain, choice=choice)
    spent = time.perf_counter() - started
    wishes = [one for one in answers if one.task.tool is not None]
    return Score(
        right=sum(one.right for one in wishes),
        tool=sum(one.call is not None and one.call.name == one.task.tool for one in wishes),
        valid=sum(one.call is not None and not one.refused for one in wishes),
        called=sum(one.call is not None for one in wishes),
        restrained=sum(one.right for one in answers if one.task.tool is None),
        seconds=spent,
        wrong=tuple(said(one) for one in wishes if not one.right),
    )


def said(answer: CallAnswer) -> str:
    call = answer.call
    return f"{answer.task.wish} -> {'no call' if call is None else f'{call.name} {dict(call.arguments)}'}"


def main() -> None:
    import tempfile

    from benchmarks.agent import default_model

    named = [a for a in sys.argv[1:] if a != "-v"]
    with tempfile.TemporaryDirectory() as folder:
        model = named[0] if named else str(default_model(Path(folder)))
    settings: tuple[tuple[str, bool, Literal["auto", "required"]], ...] = (
        ("auto, constraint on", True, "auto"), ("auto, constraint off", False, "auto"),
        ("required, constraint on", True, "required"),
    )  # fmt: skip
    rows = []
    with Engine(model, context=4096, conversations=2) as engine:
        name = engine.file.name
        for label, constrain, choice in settings:
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
