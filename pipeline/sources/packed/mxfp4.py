"""MXFP4 as gpt-oss has it: 4-bit floats, 32 of which share a power of two.

A stack of experts [experts, out, in] lies as ``NAME_blocks`` [experts, out, in / 32, 16] and ``NAME_scales`` [experts, out,
in / 32]. The view calls it ``NAME.weight``, since a plain gpt-oss has its stack under ``NAME`` turned, as [experts, in, out].
Source: transformers' ``integrations/mxfp4.py``.
"""

from __future__ import annotations

from pipeline.sources.packed.shared.microscaled import microscaled
from pipeline.sources.packed.shared.view import PackedSource, PackedWeight, Packing, misfit


def read(source: PackedSource) -> Packing:
    """The packed weights. Raises CheckpointError if scales do not fit."""
    weights: dict[str, PackedWeight] = {}
    hidden: set[str] = set()
    for name, info in source.tensors.items():
        if not name.endswith("_blocks"):
            continue
        base = name.removesuffix("_blocks")
        scales = source.tensor(f"{base}_scales", base)
        if info.dtype != "U8" or scales.dtype != "U8" or len(info.shape) != len(scales.shape) + 1:
            raise misfit(info, "blocks of 32 weights of 4 bits")
        weights[f"{base}.weight"] = microscaled(info, scales, 4, 32)
        hidden |= {name, scales.name}
    return Packing("MXFP4", weights, frozenset(hidden))
