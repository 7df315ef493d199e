"""How long a start takes, as a person feels it: whole processes, wall time.

    .venv/bin/python benchmarks/startup.py [--beside CHECKOUT]

Each command runs in turn with its twin from another checkout (an earlier commit, for one), so that a noisy machine is noisy
for both; the ratio is that of the pairs. A worker's start is the time until llama.cpp has loaded the
demo model, as `Engine.wait` sees it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = 15
WORKER = """
import sys, time
from agent import Engine
start = time.perf_counter()
with Engine(sys.argv[1], context=512, memory=8 << 30, keep_prefix=False) as engine:
    engine.wait()
    print(time.perf_counter() - start)
"""
FIRST_ANSWER = """
import sys, time
start = time.perf_counter()
from agent import Agent, Limits
with Agent(sys.argv[1], engine={"context": 512, "memory": 8 << 30, "keep_prefix": False}, limits=Limits(tokens=1)) as agent:
    agent.run("Hi")
    print(time.perf_counter() - start)
"""


def commands(model: str) -> dict[str, list[str]]:
    """What is started, by the name in the table."""
    names = ["--help", "--version", "quantize --help", "ask --help", "chat --help", "models"]
    rows = {f"sprig {name}": ["-m", "sprig", *name.split()] for name in names}
    return rows | {"a worker": ["-c", WORKER, model], "a first token": ["-c", FIRST_ANSWER, model]}


def seconds(arguments: list[str], checkout: Path, home: str) -> float:
    """One run: what it prints of itself, or the wall time of the whole process."""
    env = {**os.environ, "PYTHONPATH": str(checkout), "SPRIG_HOME": home}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=checkout, env=env, capture_output=True, text=True, check=True)
    wall = time.perf_counter() - start
    return float(done.stdout) if arguments[0] == "-c" else wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--beside", type=Path, help="another checkout, measured in pairs with this one")
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parser.parse_args()
    sys.path[0] = str(ROOT)  # beside this file lies one that is called agent.py too
    from agent.models.demo import demo_model

    model = str(demo_model())
    twin: Path | None = given.beside.resolve() if given.beside else None
    print("| | median | slowest |" + (" beside | ratio of pairs (median) |" if twin else ""))
    print("|---|---|---|" + ("---|---|" if twin else ""))
    with tempfile.TemporaryDirectory() as home:
        for name, arguments in commands(model).items():
            pairs = []
            for run in range(given.runs + 1):
                pair = seconds(arguments, ROOT, home), seconds(arguments, twin, home) if twin else 0.0
                pairs += [pair] if run else []  # the first one reads the files from disk
            own, other = zip(*pairs, strict=True)
            row = f"| `{name}` | {statistics.median(own):.3f} s | {max(own):.3f} s |"
            if twin:
                ratio = statistics.median(a / b for a, b in pairs)
                row += f" {statistics.median(other):.3f} s | {ratio:.2f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
