"""Channels of the residual stream go: from the embedding to the head, in every layer the same ones.

A norm over fewer channels divides by another mean. With D channels of which K stay, and s the share of the squared stream that
lies in those, ``x / rms_D(x) = x / rms_K(x) * sqrt(D s / K)`` on average; so the weights of each norm are multiplied by
``sqrt(D s / K)``, with s measured at that norm, and epsilon by ``D / K``, which is exact where the channels that go are zero
(but for norms of queries and keys, which share the epsilon: it is a millionth in real models).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from agent.errors import UnsupportedError
from pipeline.format.ggml import Floats
from pipeline.prune.activations import Activations, Doubles
from pipeline.prune.amount import Amount
from pipeline.prune.edits import Edits
from pipeline.prune.outcome import CutPart
from pipeline.prune.parts.ffn import importance, largest
from pipeline.prune.repair import Index
from pipeline.prune.repairs import Repairs
from pipeline.prune.structure import Structure
from pipeline.sources.checkpoint import Checkpoint
from pipeline.sources.merged import floats

_PLAIN = (
    "llama",
    "qwen3",
)  # llama.cpp's names of families with RMS norms before each part, and nothing else that counts channels
_READERS = ("attn_q", "attn_k", "attn_v"), ("ffn_gate", "ffn_up")
_NORMS = ("attn_norm", "ffn_norm")
_WRITERS = ("attn_output", "ffn_down")
_EPSILON = "rms_norm_eps"


def check_width(structure: Structure, wish: Amount) -> int:
    """How many channels stay. Raises SprigError where channels cannot go."""
    arch = structure.architecture
    if arch.gguf not in _PLAIN:
        raise UnsupportedError(f"channels of a {arch.gguf} cannot go: only of {' and '.join(_PLAIN)}; --ffn and --depth can")
    return wish.of_kernels(structure.hidden)


def cut_width(
    structure: Structure, checkpoint: Checkpoint, edits: Edits, inputs: Activations, repairs: Repairs, blocks: Iterable[int],
    wish: Amount,
) -> tuple[CutPart, dict[str, Any]]:  # fmt: skip
    """Choose the channels and note the edits; the part, and what changes in config.json."""
    total, size = structure.hidden, check_width(structure, wish)
    blocks = list(blocks)
    head = "output.weight" if structure.find("output.weight") and not structure.architecture.tied else "token_embd.weight"
    kept = largest(_scores(structure, checkpoint, inputs, blocks, head), size)
    for i in blocks:
        for norm, readers in zip(_NORMS, _READERS, strict=True):
            first = f"blk.{i}.{readers[0]}.weight"
            _cut_norm(structure, checkpoint, edits, inputs.squares(first), f"blk.{i}.{norm}.weight", kept)
            for reader in readers:
                weight = f"blk.{i}.{reader}.weight"
                edits.keep_columns(structure.name(weight), kept, repairs.of(weight, kept))
        for writer in _WRITERS:
            edits.keep_rows(structure.name(f"blk.{i}.{writer}.weight"), kept)
            edits.keep_rows(structure.find(f"blk.{i}.{writer}.bias"), kept)
    _cut_norm(structure, checkpoint, edits, inputs.squares(head), "output_norm.weight", kept)
    edits.keep_columns(structure.name("token_embd.weight"), kept)
    if (own := structure.find("output.weight")) is not None and own != structure.find("token_embd.weight"):
        edits.keep_columns(own, kept)
    eps = structure.architecture.number(_EPSILON) * total / size
    said = f" ({wish.option} {wish}, rounded to what kernels like)" if size != wish.of(total) else ""
    changes = {"hidden_size": size, "head_dim": structure.heads.size, _EPSILON: eps}
    return CutPart("width", total, size, f"the channels that what follows the norms needs most stay{said}"), changes


def norm_factor(weights: Floats, squares: Doubles, kept: Index) -> float:
    """``sqrt(D s / K)``: squares are those behind the norm, so the stream's own are these over the squared weights."""
    stream = squares / np.maximum(weights.astype(np.float64) ** 2, 1e-12)
    share = float(stream[kept].sum() / max(float(stream.sum()), 1e-300))
    return float(np.sqrt(len(weights) * share / len(kept)))


def _scores(structure: Structure, checkpoint: Checkpoint, inputs: Activations, blocks: list[int], head: str) -> Doubles:
    """What each channel adds to the outputs of all that reads the stream; each reader counts the same as a whole."""
    scores = np.zeros(structure.hidden)
    for name in [f"blk.{i}.{reader}.weight" for i in blocks for readers in _READERS for reader in readers] + [head]:
        own = importance(floats(checkpoint, structure.name(name)), inputs.squares(name))
        scores += own / own.sum()
    return scores


def _cut_norm(structure: Structure, checkpoint: Checkpoint, edits: Edits, squares: Doubles, norm: str, kept: Index) -> None:
    name = structure.name(norm)
    factor = np.float32(norm_factor(floats(checkpoint, name).ravel(), squares, kept))
    edits.keep_rows(name, kept)
    edits.change(name, partial(np.multiply, factor))
