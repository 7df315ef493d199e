"""Single tensors rounded in several ways: the error of their outputs on an unseen text, as shares of Q4_0 with an imatrix.

    .venv/bin/python benchmarks/rounding.py MODEL.gguf STATISTICS HELD_OUT [--tensors NAME...] [--rows 96]

MODEL.gguf has its weights in F32, F16 or BF16. The folders are of ``sprig calibrate --statistics`` on two texts: what is
in the first rounds, what is in the second judges. The shrinkage is the one that the encoder chooses.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent.gguf.reader import read_header  # noqa: E402
from agent.gguf.types import TYPES_BY_NAME  # noqa: E402
from pipeline.calibrate.statistics import Statistics  # noqa: E402
from pipeline.format import ggml  # noqa: E402
from pipeline.format.ggml import Floats  # noqa: E402
from pipeline.rounding.blocks import FORMATS, values  # noqa: E402
from pipeline.rounding.descent import descend  # noqa: E402
from pipeline.rounding.feedback import round_with_feedback, to_blocks  # noqa: E402
from pipeline.rounding.gptq import GptqEncoder  # noqa: E402
from pipeline.rounding.moments import moment, output_error  # noqa: E402

TENSORS = [f"blk.{t}.weight" for t in ("2.attn_q", "2.attn_output", "5.attn_q", "5.ffn_gate", "2.ffn_down", "5.ffn_down")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("statistics", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--tensors", nargs="*", default=TENSORS)
    parser.add_argument("--rows", type=int, default=96)
    args = parser.parse_args()
    known, unseen = Statistics.open(args.statistics), Statistics.open(args.held_out)
    table = {name: column(args.model, name, args.rows, known, unseen) for name in args.tensors}
    print("| |", " | ".join(name.removeprefix("blk.").removesuffix(".weight") for name in table), "|")
    print("|---|" + "---|" * len(table))
    for way in max(table.values(), key=len):
        print(f"| {way} |", " | ".join(found.get(way, "-") for found in table.values()), "|")


def column(model: Path, name: str, rows: int, known: Statistics, unseen: Statistics) -> dict[str, str]:
    """How a tensor was rounded -> its error on the text that nobody saw."""
    entry = read_header(model).tensors[name]
    data = np.memmap(model, np.uint8, mode="r")[entry.offset : entry.offset + entry.nbytes].reshape(entry.shape[0], -1)
    some = np.linspace(0, entry.shape[0] - 1, min(rows, entry.shape[0])).astype(int)
    weights = ggml.to_float(np.ascontiguousarray(data[some]), entry.type, entry.shape[1])
    judge, both = unseen.hessian(name), known.hessian(name)
    assert judge is not None
    assert both is not None
    importance = np.ascontiguousarray(np.diagonal(both[0]) / both[1], dtype=np.float32)

    def plain(kind: str, weighted: bool) -> Floats:
        raw = ggml.quantize(weights, TYPES_BY_NAME[kind], importance if weighted else None)
        return ggml.to_float(raw, TYPES_BY_NAME[kind], weights.shape[1])

    def searched(kind: str, shrinkage: float, sweeps: int) -> Floats:
        form = FORMATS[kind]
        one = moment(both[0], shrinkage, form)
        done = round_with_feedback(weights, one, form)
        descend(done, one, form, sweeps)
        return values(to_blocks(done, one, form), form)

    def encoded(kind: str) -> tuple[Floats, str]:
        encoder = GptqEncoder(known, threads=1)
        raw = encoder.encode(name, weights, TYPES_BY_NAME[kind])
        chosen = encoder.decisions[name]
        made = plain(kind, weighted=True) if raw is None else ggml.to_float(raw, TYPES_BY_NAME[kind], weights.shape[1])
        return made, "ggml" if raw is None else f"{chosen.shrinkage:g}"

    base = output_error(weights - plain("Q4_0", weighted=True), judge[0])

    def share(made: Floats) -> str:
        return f"{output_error(weights - made, judge[0]) / base:.3f}"

    found = {
        "Q4_0 plain": share(plain("Q4_0", weighted=False)),
        "Q4_0 scale search alone": share(searched("Q4_0", 1, 0)),
        "Q4_0 feedback that believes all (shrinkage 0.01)": share(searched("Q4_0", 0.01, 0)),
        "Q4_0 feedback, shrinkage 0.35": share(searched("Q4_0", 0.35, 0)),
    }
    for kind in ("Q4_0", "IQ4_NL", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"):
        if weights.shape[1] % FORMATS[kind].kind.block:
            continue
        made, chosen = encoded(kind)
        found[f"{kind} imatrix"] = share(plain(kind, weighted=True))
        found[f"**{kind} gptq** (shrinkage)"] = f"**{share(made)}** ({chosen})"
    return found


if __name__ == "__main__":
    main()
