"""The agent beside llama.cpp's llama-bench at equal settings: decode and prefill. Then how its threads wait.

    LLAMA_BENCH=.../llama-bench .venv/bin/python benchmarks/beside_llama.py [MODEL]

MODEL is a GGUF; by default the demo's model. Each pair runs in turn, so that a slow minute of the machine hits both; what counts
is the median of the ratios. Without LLAMA_BENCH the rows beside it are left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent import Engine  # noqa: E402
from agent.models.demo import TITLE  # noqa: E402
from benchmarks.agent import DECODE, answered, ratios, row  # noqa: E402

PROMPT, BATCH = 1643, 256
PAIRS, SPIN_ROUNDS = 5, 2
SPINS = ("10000", "100000", "1000000")


def beside_bench(model: Path, bench: str, threads: int) -> None:
    """Decode and prefill, at the agent's settings, on so many threads."""

    def llama_bench(*what: str) -> float:
        settings = ["-t", str(threads), "-b", str(BATCH), "-ub", str(BATCH), "-fa", "1", "-r", "1", "-o", "json"]
        done = subprocess.run([bench, "-m", str(model), *settings, *what], capture_output=True, text=True, check=True)
        return float(json.loads(done.stdout)[0]["avg_ts"])

    draw = random.Random(1)
    with Engine(model, context=8192, threads=threads, batch=BATCH, keep_prefix=False) as engine:

        def writes() -> float:
            ids, end = answered(engine, [draw.randrange(1000, 40000)], DECODE + 1)
            return (len(ids) - 1) / float(end.timing["decode_seconds"])

        def reads() -> float:
            _, end = answered(engine, [draw.randrange(1000, 40000) for _ in range(PROMPT)], 1)
            return PROMPT / float(end.timing["prefill_seconds"])

        writes()
        reads()
        for name, ours, peer, pairs in (
            (f"decode of {DECODE} tokens", writes, lambda: llama_bench("-p", "0", "-n", str(DECODE)), PAIRS),
            (f"prefill of {PROMPT} tokens", reads, lambda: llama_bench("-p", str(PROMPT), "-n", "0"), 2),
        ):
            mine, theirs, ratio = ratios(ours, peer, pairs)
            row(f"{name}, {threads} thread(s), beside llama-bench", f"{mine:.1f} / {theirs:.1f} t/s = **{ratio:.2f}**", ">= 0.96")


@contextlib.contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many programs that take whatever core they get."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def spinning(model: Path) -> None:
    """How long a thread spins before it sleeps, on an idle machine and beside other programs; in turn, the median of each."""
    cores = len(os.sched_getaffinity(0))
    print("\n| other programs | GOMP_SPINCOUNT | prefill t/s | decode t/s |\n|---|---|---|---|")
    with contextlib.ExitStack() as opened:
        engines = {}
        for spin in SPINS:
            os.environ["GOMP_SPINCOUNT"] = spin
            engines[spin] = opened.enter_context(Engine(model, context=2048, batch=BATCH, keep_prefix=False))
            answered(engines[spin], [5000], 8)
        del os.environ["GOMP_SPINCOUNT"]
        for loops in sorted({0, 1, cores}):
            found: dict[str, list[tuple[float, float]]] = {spin: [] for spin in SPINS}
            for _ in range(SPIN_ROUNDS):
                for spin, engine in engines.items():
                    with busy(loops):
                        prompt = [random.randrange(1000, 40000) for _ in range(64)]
                        ids, end = answered(engine, prompt, 129, seconds=15)
                    timing = end.timing
                    found[spin].append((len(prompt) / timing["prefill_seconds"], (len(ids) - 1) / timing["decode_seconds"]))
            for spin, speeds in found.items():
                reads, writes = (statistics.median(values) for values in zip(*speeds, strict=True))
                print(f"| {loops} | {spin} | {reads:.0f} | {writes:.1f} |", flush=True)


def main() -> None:
    demo = ROOT / ".demo" / f"{TITLE}-Q8_0.gguf"
    model = Path(sys.argv[1]) if len(sys.argv) > 1 else demo
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SPRIG_HOME"] = str(folder / "home")
        print("| what | measured | asked |\n|---|---|---|")
        if bench := os.environ.get("LLAMA_BENCH"):
            for threads in sorted({1, len(os.sched_getaffinity(0))}):
                beside_bench(model, bench, threads)
        spinning(model)


if __name__ == "__main__":
    main()
