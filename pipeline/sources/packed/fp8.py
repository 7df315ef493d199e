"""FP8 as DeepSeek, Qwen and Mistral publish it: one 8-bit float a weight, a scale for each block or for the whole tensor.

Source: transformers' FineGrainedFP8Config. Despite its name, ``weight_scale_inv`` is what a weight is multiplied with.
"""

from __future__ import annotations

from agent.errors import CheckpointError
from pipeline.sources.packed.shared.scaled import FP8, for_activations, parts, scaled_weights
from pipeline.sources.packed.shared.view import PackedSource, Packing


def read(source: PackedSource) -> Packing:
    """The packed weights. Raises CheckpointError if scales do not fit."""
    weights = scaled_weights(source, FP8, ("_scale_inv", "_scale"), _block(source))
    return Packing("FP8", weights, frozenset(parts(weights.values()) | for_activations(source.tensors)))


def _block(source: PackedSource) -> tuple[int, int] | None:
    block = source.settings.get("weight_block_size")
    if block is None:
        return None
    if not isinstance(block, list) or len(block) != 2 or not all(type(n) is int and 0 < n < 2**31 for n in block):
        raise CheckpointError("config.json: weight_block_size must be two whole numbers from 1 on")
    return block[0], block[1]
