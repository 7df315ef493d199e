"""MXFP4 as gpt-oss has it: 4-bit floats, 32 of which share a power of two.

A stack of experts [experts, out, in] lies as ``NAME_blocks`` [experts, out, in / 32, 16], the first of two codes in the low half
of a byte, and ``NAME_scales`` [experts, out, in / 32]. The view calls it ``NAME.weight``, since a plain gpt-oss has its stack
under ``NAME`` turned, as [experts, in, out].
Source: transformers' ``integrations/mxfp4.py``; OCP Microscaling 1.0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.sources.checkpoint import Checkpoint
from pipeline.sources.packed.shared.bits import E2M1, E8M0, matrix, unpack
from pipeline.sources.packed.shared.view import Floats, PackedSource, PackedWeight, Packing, misfit

_BLOCK = 32


@dataclass(frozen=True)
class Mxfp4(PackedWeight):
    """Blocks of 32 with one scale.

    Attributes:
        scales: the tensor of powers of two.
    """

    scales: str

    def rows(self, stored: Checkpoint, start: int, stop: int) -> Floats:
        length = self.shape[-1]
        codes = unpack(np.ascontiguousarray(matrix(stored, self.name, start, stop, length // 2)), 4)
        scales = E8M0[matrix(stored, self.scales, start, stop, length // _BLOCK)]
        return (E2M1[codes].reshape(len(codes), -1, _BLOCK) * scales[:, :, None]).reshape(len(codes), length)


def read(source: PackedSource) -> Packing:
    """The packed weights. Raises CheckpointError if scales do not fit."""
    weights, hidden = {}, set()
    for name, info in source.tensors.items():
        if not name.endswith("_blocks"):
            continue
        base = name.removesuffix("_blocks")
        scales = source.tensor(f"{base}_scales", base)
        if info.dtype != "U8" or len(info.shape) < 3 or info.shape[-1] != _BLOCK // 2:
            raise misfit(info, f"blocks of {_BLOCK} weights of 4 bits")
        if scales.dtype != "U8" or scales.shape != info.shape[:-1]:
            raise misfit(scales, f"blocks of shape {list(info.shape)}")
        weights[f"{base}.weight"] = Mxfp4(name, (*info.shape[:-2], info.shape[-2] * _BLOCK), scales.name)
        hidden |= {name, scales.name}
    return Packing("MXFP4", weights, frozenset(hidden))
