"""Whole groups of attention go, keys and values with the query heads that share them: grouped attention stays what it is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from agent.errors import RecipeError
from pipeline.format.ggml import Floats
from pipeline.prune.activations import Activations, Doubles
from pipeline.prune.amount import Amount
from pipeline.prune.edits import Edits
from pipeline.prune.outcome import CutPart
from pipeline.prune.parts.ffn import largest
from pipeline.prune.repair import Index
from pipeline.prune.repairs import Repairs
from pipeline.prune.structure import Heads, Structure
from pipeline.sources.checkpoint import Checkpoint
from pipeline.sources.merged import floats


def energies(output: Floats, hessian: Floats, heads: Heads) -> Doubles:
    """What each group adds to the residual stream: ``trace(W_g H_gg W_g^T)``, float64 [groups].

    Args:
        output: the weights behind attention, [hidden, query heads * size].
        hessian: of their inputs.
    """
    span = heads.shared * heads.size
    parts = [np.s_[g * span : (g + 1) * span] for g in range(heads.groups)]
    return np.array([np.einsum("rc,rc->", output[:, p] @ hessian[p, p], output[:, p], dtype=np.float64) for p in parts])


def wanted_groups(heads: Heads, wish: Amount) -> int:
    """How many groups stay. Raises RecipeError if the heads that stay make no whole groups."""
    if heads.groups == 1:
        raise RecipeError(f"{wish.option} {wish}: the model has one group of keys and values, and that must stay")
    heads_left = wish.of(heads.queries)
    if wish.stay is not None and heads_left % heads.shared:
        sizes = ", ".join(str(g * heads.shared) for g in range(1, heads.groups))
        raise RecipeError(
            f"{wish.option} {wish}: {heads.shared} heads share each group of keys and values, and only whole groups go; "
            f"take {sizes}"
        )
    return min(max(1, round(heads_left / heads.shared)), heads.groups - 1)


def cut_heads(
    structure: Structure, checkpoint: Checkpoint, edits: Edits, inputs: Activations, repairs: Repairs, blocks: Iterable[int],
    wish: Amount,
) -> CutPart:  # fmt: skip
    """Choose the groups of each layer and note the edits. Raises SprigError where whole groups cannot go."""
    heads = structure.heads
    groups = wanted_groups(heads, wish)
    for i in blocks:
        out = f"blk.{i}.attn_output.weight"
        name = structure.name(out)
        stay = largest(energies(floats(checkpoint, name), inputs.both(out), heads), groups)
        queries, keys = _spans(stay, heads.shared * heads.size), _spans(stay, heads.size)
        edits.keep_columns(name, queries, repairs.of(out, queries))
        for part, rows in (("q", queries), ("k", keys), ("v", keys)):
            edits.keep_rows(structure.name(f"blk.{i}.attn_{part}.weight"), rows)
            edits.keep_rows(structure.find(f"blk.{i}.attn_{part}.bias"), rows)
    what = f"{groups} of {heads.groups} groups stay in each layer, with {heads.shared} query heads each: those that add most"
    return CutPart("heads", heads.queries, groups * heads.shared, what)


def _spans(places: Index, size: int) -> Index:
    """The rows of these groups, of so many rows each."""
    found: Index = (places[:, None] * size + np.arange(size)).ravel()
    return found
