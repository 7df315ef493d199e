"""What `sprig fit` predicts for this machine beside what `sprig bench` measures: files of models of four shapes and five recipes.

    .venv/bin/python benchmarks/fit.py [--own-time] [--profile FILE]

First the machine is measured with the stand-ins of agent/fit/calibrate.py, as `sprig fit --measure` does; none of the files below
is used for that. ``--own-time``: one thread, and the processor's time that it takes, for a machine that other programs keep busy.
``--profile``: figures that were kept before, instead of measuring them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent.device.processor import choose_threads  # noqa: E402
from agent.fit.bench import GENERATE, PROMPT, Way, bench_file  # noqa: E402
from agent.fit.calibrate import measure_machine  # noqa: E402
from agent.fit.profile import read_profile  # noqa: E402
from agent.fit.speed import bytes_per_token, predict  # noqa: E402
from agent.models.file import read_model  # noqa: E402
from agent.models.memory import BATCH  # noqa: E402
from pipeline import quantize  # noqa: E402
from tests.fixtures.random_llama import LlamaShape, write_checkpoint  # noqa: E402
from tests.fixtures.smollm2 import rebuild  # noqa: E402

SHAPES = {
    "narrow and deep": (LlamaShape(768, 2048, 20, 12, 4, 16000), ("Q4_K_M", "Q5_K_M")),
    "wide and shallow": (LlamaShape(1536, 4096, 8, 24, 8, 4096, tied=True), ("Q6_K", "Q4_0")),
}  # fmt: skip


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Makes the models one by one."""
    checkpoint = rebuild(folder / "smollm2")
    for recipe in ("Q4_0", "Q8_0"):
        yield f"SmolLM2-135M {recipe}", quantize(str(checkpoint), recipe, folder / f"smollm2-{recipe}.gguf").path
    for name, (shape, recipes) in SHAPES.items():
        checkpoint = write_checkpoint(folder / name.replace(" ", "-"), shape)
        for recipe in recipes:
            out = folder / f"{checkpoint.name}-{recipe}.gguf"
            yield f"random, {name}, {recipe}", quantize(str(checkpoint), recipe, out).path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--own-time", action="store_true")
    parser.add_argument("--profile", type=Path)
    chosen = parser.parse_args()
    own = chosen.own_time
    machine = read_profile(chosen.profile) if chosen.profile else measure_machine(print, own_time=own)
    way = Way(choose_threads(wanted=1 if own else None), BATCH, "f16", repack=True)
    print(f"\n{machine.title}, {way.threads.why}\n")
    print("| model | writes: predicted / measured | ratio | bytes over bandwidth alone | reads: predicted / measured | ratio |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, path in files(Path(folder)):
            file = read_model(path)
            told = predict(file, machine, context=1024)
            found = bench_file(str(path), name, way, prompt=PROMPT, generate=GENERATE // 2, repeat=3, own_time=own)
            reads, writes = max(found.prefill), max(found.decode)
            bare = machine.decode.bandwidth.value * 1e9 / sum(bytes_per_token(file).values())
            print(
                f"| {name} | {told.writes:.1f} / {writes:.1f} t/s | **{told.writes / writes:.2f}** | {bare / writes:.2f} "
                f"| {told.reads:.0f} / {reads:.0f} t/s | **{told.reads / reads:.2f}** |", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
