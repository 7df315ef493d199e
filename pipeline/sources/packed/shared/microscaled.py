"""Floats of 4 or 8 bits in small groups, each with a scale that is a small float too: MXFP4, NVFP4, MXFP8.

Source: OCP Microscaling 1.0; NVIDIA's NVFP4 has groups of 16 with a scale in E4M3, and one more scale for the whole tensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from pipeline.sources.checkpoint import Checkpoint, RawRows, TensorInfo
from pipeline.sources.packed.shared.bits import E2M1, E4M3, E8M0, look_up, matrix, numbers
from pipeline.sources.packed.shared.view import Floats, PackedWeight, misfit


@dataclass(frozen=True)
class Microscaled(PackedWeight):
    """Weight = code * scale of its group, times or divided by the scale of the tensor.

    Attributes:
        bits: 4 (E2M1, the first of two codes in the low half of a byte) or 8 (E4M3).
        group: weights with one scale.
        scales: the tensor of scales, one byte each: powers of two (E8M0) or E4M3.
        powers: whether they are powers of two.
        whole: the tensor with the scale of the whole, if there is one.
        divides: whether that one divides.
    """

    bits: int
    group: int
    scales: str
    powers: bool
    whole: str | None = None
    divides: bool = False

    def rows(self, stored: Checkpoint, start: int, stop: int) -> Floats:
        length = self.shape[-1]
        width = stored.tensors[self.name].nbytes // prod(self.shape[:-1])  # bytes of a row, in whatever type they are
        raw = np.ascontiguousarray(_row_bytes(stored, self.name, start, stop, width))
        weights = look_up(raw, self.bits, E2M1 if self.bits == 4 else E4M3).reshape(stop - start, -1, self.group)
        scales = (E8M0 if self.powers else E4M3)[_row_bytes(stored, self.scales, start, stop, length // self.group)]
        if self.whole is not None:
            whole = numbers(stored, self.whole, 0, 1, 1)[0, 0]
            scales = scales / whole if self.divides else scales * whole
        weights *= scales[:, :, None]
        return weights.reshape(stop - start, length)


def _row_bytes(stored: Checkpoint, name: str, start: int, stop: int, width: int) -> RawRows:
    info = stored.tensors[name]
    return matrix(stored, name, start, stop, width * prod(info.shape) // info.nbytes)


def microscaled(
    packed: TensorInfo, scales: TensorInfo, bits: int, group: int, *, whole: TensorInfo | None = None, divides: bool = False
) -> Microscaled:
    """Codes [.., out, bytes] (or [.., out, groups, bytes of a group]) and their scales [.., out, groups].

    Raises:
        CheckpointError: they do not go together.
    """
    rows = packed.shape[: len(scales.shape) - 1]
    codes = packed.nbytes * 8 // bits
    if scales.dtype not in ("U8", "F8_E4M3") or len(scales.shape) < 2 or scales.shape[:-1] != rows or not codes:
        raise misfit(scales, f"codes of shape {list(packed.shape)}")
    length = codes // prod(rows)
    if length != scales.row_length * group:
        raise misfit(scales, f"groups of {group} in codes of shape {list(packed.shape)} of {bits} bits")
    if whole is not None and prod(whole.shape) != 1:
        raise misfit(whole, "a whole tensor")
    powers = scales.dtype == "U8" and group == 32
    return Microscaled(packed.name, (*rows, length), bits, group, scales.name, powers, whole.name if whole else None, divides)
