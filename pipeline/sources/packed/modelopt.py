"""NVIDIA's ModelOpt: FP8 with one scale for the tensor, and NVFP4.

``weight_scale_2`` is NVFP4's scale of the whole tensor. Source: https://github.com/NVIDIA/Model-Optimizer (``quant_utils.py``).
"""

from __future__ import annotations

from pipeline.sources.packed.shared.microscaled import microscaled
from pipeline.sources.packed.shared.scaled import FP8, for_activations, parts, scaled_weights
from pipeline.sources.packed.shared.view import PackedSource, PackedWeight, Packing

_GROUP = 16


def read(source: PackedSource) -> Packing:
    """The packed weights. Raises CheckpointError if scales do not fit."""
    eight = scaled_weights(source, FP8, ("_scale",), None)
    four: dict[str, PackedWeight] = {}
    hidden = parts(eight.values()) | for_activations(source.tensors)
    for name, info in source.tensors.items():
        if info.dtype == "U8" and name.endswith(".weight") and f"{name}_scale_2" in source.tensors:
            scales, whole = source.tensor(f"{name}_scale", name), source.tensors[f"{name}_scale_2"]
            four[name] = microscaled(info, scales, 4, _GROUP, whole=whole)
            hidden |= {name, scales.name, whole.name}
    kinds = [kind for kind, found in (("FP8", eight), ("NVFP4", four)) if found]
    return Packing(f"ModelOpt {'/'.join(kinds)}", {**eight, **four}, frozenset(hidden))
