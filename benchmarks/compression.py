"""What is left of a model that lost weights, before and after it learned again, and beside the whole model in the same bytes.

    python benchmarks/compression.py [--work DIR] [--windows N] [--data FILE ...] [--own N] [--tokens N] [--for-tokens N]
                                     [--only NAME ...]

The model is SmolLM2-135M-Instruct, dithered, as in benchmarks/fidelity.py, whose folder may be named. Its feed-forward parts are
cut from 1536 to 1280 neurons, with and without the repair, and four layers are cut instead; the repaired one learns again from
the whole model. Each stands there in F32, which says what the cut costs, and as Q4_0 (gptq) beside the whole model in as many
bytes (``--size``). The whole model is trained through the rounding of Q4_0 too, beside the best rounding afterwards. Every file
is run in llama.cpp against the original in F32 on held-out texts. What was made stays in the folder and is used again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent.files import human_size  # noqa: E402
from benchmarks.fidelity import Bench  # noqa: E402
from pipeline import calibrate, distill, evaluate, prune, quantize  # noqa: E402
from pipeline.distill.options import DistillOptions  # noqa: E402
from pipeline.evaluate.figures import EvaluatedFile  # noqa: E402
from pipeline.evaluate.report.pareto import Point, pareto_svg  # noqa: E402

WHOLE, CUT, TAUGHT = "whole", "cut", "cut and taught"
FFN, LAYERS = 1280, 26


class Compression:
    """The checkpoints and files in a folder, made when they are asked for."""

    def __init__(self, work: Path, data: list[Path], options: Mapping[str, Any], for_tokens: int) -> None:
        self.base = Bench(work, None)
        self.base.prepare()
        self.work, self.data, self.options, self.for_tokens = work, data, options, for_tokens
        self.source = str(self.base.source)

    def checkpoint(self, name: str, make: Callable[[Path], object]) -> Path:
        folder = self.work / name
        if not folder.exists():
            make(folder)
        return folder

    def cut(self, name: str, **wishes: Any) -> Path:
        return self.checkpoint(name, lambda out: prune(self.source, out, statistics=self.base.statistics, check=False, **wishes))

    def repaired(self) -> Path:
        return self.cut("ffn1280", ffn=FFN)

    def taught(self) -> Path:
        return self.checkpoint("taught", lambda out: self._learn(str(self.repaired()), out, **self.options))

    def for_q4_0(self) -> Path:
        more = {**self.options, "tokens": self.for_tokens, "recipe": "Q4_0", "rate": 5e-5}  # it knows all already
        return self.checkpoint("for-Q4_0", lambda out: self._learn(self.source, out, **more))

    def _learn(self, student: str, out: Path, **options: Any) -> None:
        resume = out.with_name(f"{out.name}.part").exists()
        distill(self.source, student, out, data=self.data, options=DistillOptions(**options), resume=resume, on_note=print)

    def gguf(self, name: str, source: Path | str, recipe: str | None, **options: Any) -> Path:
        path = self.work / f"{name}.gguf"
        if not path.exists():
            quantize(str(source), recipe, path, **options)
        return path

    def plain(self, folder: Path) -> Path:
        return self.gguf(f"{folder.name}-F32", folder, "F32")

    def rounded(self, folder: Path) -> Path:
        """As Q4_0 by gptq, on statistics of this very checkpoint."""
        statistics = self.work / f"{folder.name}-statistics"
        if not (statistics / "statistics.json").exists():
            calibrate(str(folder), self.work / f"{folder.name}-imatrix.gguf", statistics=statistics)
        return self.gguf(f"{folder.name}-Q4_0", folder, "Q4_0", encoder="gptq", statistics=statistics)

    def whole(self, like: Path) -> Path:
        """The whole model in as many bytes as another file has."""
        return self.gguf(f"whole-like-{like.stem}", self.source, None, size=like.stat().st_size, statistics=self.base.statistics)

    def whole_q4_0(self) -> Path:
        return self.gguf("Q4_0-gptq", self.source, "Q4_0", encoder="gptq", statistics=self.base.statistics)

    def trained_q4_0(self) -> Path:
        """ggml's own rounding, which is what was trained through."""
        return self.gguf("for-Q4_0-Q4_0", self.for_q4_0(), "Q4_0")


def files(bench: Compression) -> dict[str, tuple[str, Callable[[], Path]]]:
    """Name -> series and what makes the file."""
    return {
        "FFN 1280, not repaired": (CUT, lambda: bench.plain(bench.cut("ffn1280-plain", ffn=FFN, repair=False))),
        "FFN 1280, repaired": (CUT, lambda: bench.plain(bench.repaired())),
        "26 layers": (CUT, lambda: bench.plain(bench.cut("depth26", depth=LAYERS))),
        "FFN 1280, taught": (TAUGHT, lambda: bench.plain(bench.taught())),
        "FFN 1280, repaired, Q4_0": (CUT, lambda: bench.rounded(bench.repaired())),
        "FFN 1280, taught, Q4_0": (TAUGHT, lambda: bench.rounded(bench.taught())),
        "26 layers, Q4_0": (CUT, lambda: bench.rounded(bench.cut("depth26", depth=LAYERS))),
        "whole, in these bytes": (WHOLE, lambda: bench.whole(bench.rounded(bench.taught()))),
        "whole, Q4_0 gptq": (WHOLE, bench.whole_q4_0),
        "whole, trained through Q4_0": (WHOLE, bench.trained_q4_0),
    }


def row(name: str, one: EvaluatedFile) -> str:
    f = one.overall
    if not (f.kld and f.kld_median and f.top1 and f.nll_over_reference):
        raise ValueError("there was no reference")
    return (
        f"| {name} | {human_size(one.size)} | {f.kld.value:.3f} ± {f.kld.error or 0:.3f} | {f.kld_median.value:.3f} | "
        f"{100 * f.top1.value:.1f} % | {f.nll_over_reference.value:.3f} ± {f.nll_over_reference.error or 0:.3f} | "
        f"{f.perplexity.value:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / ".bench" / "fidelity")
    parser.add_argument("--windows", type=int, default=32, help="of 512 tokens")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="text to learn from, beside what the model writes")
    parser.add_argument("--own", type=int, default=40_000, help="tokens that the model writes to learn from")
    parser.add_argument("--tokens", type=int, default=150_000, help="that the cut model learns from")
    parser.add_argument("--for-tokens", type=int, default=50_000, help="of the training through the rounding")
    parser.add_argument("--only", nargs="+", help="names of the table's files")
    arguments = parser.parse_args()
    learning = {"tokens": arguments.tokens, "own": arguments.own, "batch": 4, "rate": 2e-4}
    bench = Compression(arguments.work, arguments.data, learning, arguments.for_tokens)
    kept = {name: made for name, made in files(bench).items() if not arguments.only or name in arguments.only}
    evaluation = evaluate([make() for _, make in kept.values()], reference=bench.base.reference, windows=arguments.windows)
    first = evaluation.candidates[0].overall
    named = list(zip(kept, evaluation.candidates, strict=True))
    lines = [
        f"{first.tokens:,} scored tokens in {first.windows} windows.", "",
        "| | size | mean KLD | median | same top-1 | more loss, nats | perplexity |", "|---|---|---|---|---|---|---|",
        *(row(name, one) for name, one in named),
    ]  # fmt: skip
    print("\n".join(lines))
    (bench.work / "compression.json").write_text(json.dumps(evaluation.to_dict(), indent=1))
    finished = [(name, one) for name, one in named if "Q4_0" in name or name.startswith("whole")]
    if not finished:
        return
    points = [Point(name, kept[name][0], one.size, one.kld.value, one.kld.error) for name, one in finished if one.kld]
    (bench.work / "compression.svg").write_text(pareto_svg(points, each_series=True))


if __name__ == "__main__":
    main()
