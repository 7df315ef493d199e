"""MLX: integers of 2 to 8 bits with a scale and a bias for each group, or 4-bit and 8-bit floats with a scale.

A weight [out, in] lies as ``weight`` [out, in * bits / 32] in 32-bit words, ``scales`` and ``biases`` [out, groups].
Source: ``mlx.core.quantize`` of https://ml-explore.github.io/mlx.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from agent.errors import UnsupportedError
from pipeline.sources.checkpoint import Checkpoint
from pipeline.sources.packed.shared.bits import CODES, look_up, matrix, numbers
from pipeline.sources.packed.shared.microscaled import Microscaled, microscaled
from pipeline.sources.packed.shared.view import Floats, PackedSource, PackedWeight, Packing, misfit

_FLOATS = {"mxfp4": (4, 32), "nvfp4": (4, 16), "mxfp8": (8, 32)}  # mode -> bits, group


@dataclass(frozen=True)
class Mlx(PackedWeight):
    """Codes along the rows, without gaps.

    Attributes:
        module: what the names of its tensors begin with.
        bits: of a code.
        group: columns with one scale.
    """

    module: str
    bits: int
    group: int

    def rows(self, stored: Checkpoint, start: int, stop: int) -> Floats:
        length = self.shape[-1]
        groups = length // self.group
        words = matrix(stored, self.name, start, stop, stored.tensors[self.name].row_length)
        weights = look_up(np.ascontiguousarray(words), self.bits, CODES).reshape(stop - start, groups, self.group)
        weights *= numbers(stored, f"{self.module}.scales", start, stop, groups)[:, :, None]
        weights += numbers(stored, f"{self.module}.biases", start, stop, groups)[:, :, None]
        return weights.reshape(stop - start, length)


def read(source: PackedSource) -> Packing:
    """The packed weights. Raises CheckpointError, or UnsupportedError for a mode that is not known."""
    modules = [
        name.removesuffix(".weight")
        for name, info in source.tensors.items()
        if name.endswith(".weight") and info.dtype == "U32" and f"{name.removesuffix('weight')}scales" in source.tensors
    ]
    weights = {f"{module}.weight": _mlx(source, module) for module in modules}
    hidden = {f"{module}.{part}" for module in modules for part in ("weight", "scales", "biases")}
    bits = "/".join(str(b) for b in sorted({w.bits for w in weights.values()}))
    return Packing(f"MLX {bits} bit", weights, frozenset(hidden))


def _mlx(source: PackedSource, module: str) -> Mlx | Microscaled:
    packed, scales = source.tensor(f"{module}.weight", module), source.tensor(f"{module}.scales", module)
    # A module may have settings of its own, under its name.
    own = source.settings.get(module)
    merged: Mapping[str, Any] = {**source.settings, **own} if isinstance(own, dict) else source.settings
    settings = PackedSource(merged, source.tensors, source.content)
    mode = str(merged.get("mode", "affine"))
    if mode in _FLOATS:
        return microscaled(packed, scales, *_FLOATS[mode])
    bits, group = settings.integer("bits"), settings.integer("group_size", default=64)
    if mode != "affine" or bits > 8:
        raise UnsupportedError(f"{module!r} is packed by MLX in {bits} bits ({mode[:40]!r}), which Sprig does not read")
    length = packed.row_length * 32 // bits
    if len(packed.shape) < 2 or packed.row_length * 32 % bits or not prod(packed.shape):
        raise misfit(packed, f"a weight of {bits} bits")
    for table in (scales, source.tensor(f"{module}.biases", module)):
        known = table.dtype in ("F16", "BF16", "F32")
        if not known or length % group or table.shape != (*packed.shape[:-1], length // group):
            raise misfit(table, f"groups of {group} in a packed weight of shape {list(packed.shape)} in {bits} bits")
    return Mlx(packed.name, (*packed.shape[:-1], length), module, bits, group)
