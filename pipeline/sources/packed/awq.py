"""AWQ: 4-bit integers, eight to a word across the rows in an order of its own; a scale and a zero for each group.

A weight [out, in] lies as ``qweight`` [in, out / 8]; ``scales`` [groups, out], ``qzeros`` [groups, out / 8].
Source: ``WQLinear_GEMM`` of https://github.com/casper-hansen/AutoAWQ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.errors import UnsupportedError
from pipeline.sources.checkpoint import Checkpoint
from pipeline.sources.packed.shared.bits import Codes, columns, turned
from pipeline.sources.packed.shared.grouped import grouped
from pipeline.sources.packed.shared.view import Floats, PackedSource, PackedWeight, Packing, misfit

_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # field i of a word holds this one of the eight


@dataclass(frozen=True)
class Awq(PackedWeight):
    """Codes across the rows.

    Attributes:
        module: what the names of its tensors begin with.
        group: columns of the weight with one scale.
    """

    module: str
    group: int

    def rows(self, stored: Checkpoint, start: int, stop: int) -> Floats:
        codes = _columns(stored, self.name, start, stop)
        zeros = _columns(stored, f"{self.module}.qzeros", start, stop)
        scales = turned(stored, f"{self.module}.scales", start, stop)
        return grouped(codes, zeros, scales, self.group)


def _columns(stored: Checkpoint, name: str, start: int, stop: int) -> Codes:
    """Columns [start, stop) of the unpacked matrix, as uint8 [stop - start, rows of the matrix]."""
    first = start // 8
    raw = columns(stored, name, first, -(-stop // 8)).view(np.uint8).reshape(-(-stop // 8) - first, -1, 4)
    codes = np.empty((len(raw), 8, raw.shape[1]), np.uint8)
    for field, place in enumerate(_ORDER):
        half = raw[:, :, field // 2]  # two fields a byte
        codes[:, place] = half >> 4 if field % 2 else half & 15
    return codes.reshape(-1, raw.shape[1])[start - 8 * first : stop - 8 * first]


def read(source: PackedSource) -> Packing:
    """The packed weights. Raises CheckpointError, or UnsupportedError for a layout that is not known."""
    version = str(source.settings.get("version", "gemm")).lower()
    bits = source.integer("bits", "w_bit", default=4)
    if version != "gemm" or bits != 4:
        raise UnsupportedError(
            f"the checkpoint is AWQ of {bits} bits in the layout {version[:40]!r}; Sprig reads 4 bits in 'gemm'"
        )
    group = source.integer("group_size", "q_group_size", default=128, least=-1)
    modules = [name.removesuffix(".qweight") for name in source.tensors if name.endswith(".qweight")]
    weights = {f"{module}.weight": _awq(source, module, group) for module in modules}
    hidden = {f"{module}.{part}" for module in modules for part in ("qweight", "qzeros", "scales")}
    return Packing("AWQ 4 bit", weights, frozenset(hidden))


def _awq(source: PackedSource, module: str, group: int) -> Awq:
    packed, zeros, scales = (source.tensor(f"{module}.{part}", module) for part in ("qweight", "qzeros", "scales"))
    if packed.dtype != "I32" or len(packed.shape) != 2 or not packed.shape[0]:
        raise misfit(packed, "a weight of 4 bits")
    length, out = packed.shape[0], packed.shape[1] * 8
    group = length if group == -1 else group
    groups = -(-length // group) if group > 0 else 0
    if not groups or scales.shape != (groups, out):
        raise misfit(scales, f"groups of {group} in a weight of shape {[out, length]}")
    if zeros.dtype != "I32" or zeros.shape != (groups, packed.shape[1]):
        raise misfit(zeros, f"scales of shape {list(scales.shape)}")
    return Awq(packed.name, (out, length), module, group)
