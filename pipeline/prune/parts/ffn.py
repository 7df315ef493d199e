"""Neurons of the feed-forward parts go: those whose outputs carry least, measured on text; the others take over what they did."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipeline.format.ggml import Floats
from pipeline.prune.activations import Activations, Doubles
from pipeline.prune.amount import Amount
from pipeline.prune.edits import Edits
from pipeline.prune.outcome import CutPart
from pipeline.prune.repair import Index
from pipeline.prune.repairs import Repairs
from pipeline.prune.structure import Structure
from pipeline.sources.checkpoint import Checkpoint
from pipeline.sources.merged import floats


def importance(down: Floats, squares: Doubles) -> Doubles:
    """What each neuron adds to the outputs by itself: ``E[x_j^2] |W_:j|^2``, float64 [neurons]."""
    found: Doubles = squares * np.einsum("rc,rc->c", down, down, dtype=np.float64)
    return found


def largest(scores: Doubles, count: int) -> Index:
    """The places of the largest, ascending; of equal ones the first."""
    return np.sort(np.argsort(-scores, kind="stable")[:count]).astype(np.int64)


def cut_ffn(
    structure: Structure, checkpoint: Checkpoint, edits: Edits, inputs: Activations, repairs: Repairs, blocks: Iterable[int],
    wish: Amount,
) -> CutPart:  # fmt: skip
    """Choose the neurons of each layer and note the edits. Raises SprigError if there are no such parts."""
    total = structure.ffn
    size = wish.of_kernels(total)
    for i in blocks:
        down, up = (f"blk.{i}.ffn_{part}.weight" for part in ("down", "up"))
        name = structure.name(down)
        kept = largest(importance(floats(checkpoint, name), inputs.squares(down)), size)
        edits.keep_columns(name, kept, repairs.of(down, kept))
        fused = structure.infos[structure.name(up)].shape[0] == 2 * total  # gate and up, one above the other
        rows = np.concatenate([kept, kept + total]) if fused else kept
        edits.keep_rows(structure.name(up), rows)
        for other in ("ffn_gate.weight", "ffn_gate.bias", "ffn_up.bias"):
            edits.keep_rows(structure.find(f"blk.{i}.{other}"), kept)
    said = f" ({wish.option} {wish}, rounded to what kernels like)" if size != wish.of(total) else ""
    return CutPart("ffn", total, size, f"the neurons that add most to the outputs stay{said}")
