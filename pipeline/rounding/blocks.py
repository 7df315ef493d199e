"""The block formats of ggml as the numbers that they store: scales, mins and codes.

A weight is ``step * level[code] + offset``. Formats of 32 weights store step and offset as float16; K-quants store them for a
super-block of 256 and an integer multiple of each for every group. Source of the layouts: ``ggml-common.h`` and
``dequantize_row_*`` of ``ggml-quants.c``. Every product here is exact in float32, so ``values`` equals ggml bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.gguf.types import TYPES_BY_NAME, GGMLType
from pipeline.format.ggml import Bytes, Floats

Halves = npt.NDArray[np.float16]
Integers = npt.NDArray[np.int16]

_IQ4_NL = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


@dataclass(frozen=True, slots=True)
class Format:
    """What a block can hold.

    Attributes:
        kind: ggml's type.
        levels: float32 [codes], ascending.
        group: weights that share a step.
        offset: whether a group has an offset too.
        top: the largest integer multiple of a super-block's step; 0 for formats without super-blocks.
    """

    kind: GGMLType
    levels: Floats
    group: int = 32
    offset: bool = False
    top: int = 0

    @property
    def low(self) -> float:
        return float(self.levels[0])

    @property
    def high(self) -> float:
        return float(self.levels[-1])


def _format(name: str, low: int, high: int, *, group: int = 32, offset: bool = False, top: int = 0) -> Format:
    return Format(TYPES_BY_NAME[name], np.arange(low, high + 1, dtype=np.float32), group, offset, top)


FORMATS: dict[str, Format] = {
    f.kind.name: f
    for f in (
        _format("Q4_0", -8, 7),
        _format("Q4_1", 0, 15, offset=True),
        Format(TYPES_BY_NAME["IQ4_NL"], np.array(_IQ4_NL, dtype=np.float32)),
        _format("Q5_0", -16, 15),
        _format("Q5_1", 0, 31, offset=True),
        _format("Q8_0", -127, 127),
        _format("Q4_K", 0, 15, offset=True, top=63),
        _format("Q5_K", 0, 31, offset=True, top=63),
        _format("Q6_K", -32, 31, group=16, top=127),
    )
}


@dataclass(frozen=True, slots=True)
class Blocks:
    """Rows of a tensor in a block format.

    Attributes:
        codes: uint8 [rows, columns], indices into the format's levels.
        step: float16 [rows, blocks].
        offset: float16 [rows, blocks] where the format has one. A K-quant subtracts it.
        steps: int16 [rows, groups] of a K-quant: multiples of its block's step.
        offsets: int16 [rows, groups] of a K-quant with offsets.
    """

    codes: Bytes
    step: Halves
    offset: Halves | None = None
    steps: Integers | None = None
    offsets: Integers | None = None


def values(blocks: Blocks, form: Format) -> Floats:
    """The weights, float32 [rows, columns]."""
    rows, columns = blocks.codes.shape
    step, offset = blocks.step.astype(np.float32), None if blocks.offset is None else blocks.offset.astype(np.float32)
    if blocks.steps is not None:
        step = _spread(step, blocks.steps) * blocks.steps
        if offset is not None and blocks.offsets is not None:
            offset = -(_spread(offset, blocks.offsets) * blocks.offsets)
    grouped = form.levels[blocks.codes].reshape(rows, -1, form.group) * step[:, :, None]
    if offset is not None:
        grouped += offset[:, :, None]
    return np.ascontiguousarray(grouped.reshape(rows, columns), dtype=np.float32)


def _spread(per_block: Floats, per_group: Integers) -> Floats:
    return np.repeat(per_block, per_group.shape[1] // per_block.shape[1], axis=1)


def pack(blocks: Blocks, form: Format) -> Bytes:
    """The blocks as they stand in a file, uint8 [rows, bytes per row]."""
    rows, columns = blocks.codes.shape
    kind = form.kind
    codes = blocks.codes.reshape(rows, columns // kind.block, kind.block)
    parts: list[Bytes]
    if kind.name == "Q6_K":
        assert blocks.steps is not None
        parts = [*_pack_six(codes), _bytes(blocks.steps.astype(np.int8).reshape(rows, -1, 16)), _bytes(blocks.step[:, :, None])]
    else:
        parts = [_bytes(blocks.step[:, :, None])]
        if blocks.offset is not None:
            parts.append(_bytes(blocks.offset[:, :, None]))
        if blocks.steps is not None and blocks.offsets is not None:
            parts.append(_pack_scales(blocks.steps.reshape(rows, -1, 8), blocks.offsets.reshape(rows, -1, 8)))
        parts += _pack_codes(codes, kind.name)
    return np.ascontiguousarray(np.concatenate(parts, axis=2).reshape(rows, -1))


def _bytes(array: npt.NDArray[np.generic]) -> Bytes:
    return np.ascontiguousarray(array).view(np.uint8)


def _pack_codes(codes: Bytes, name: str) -> list[Bytes]:
    """Codes of whole blocks, [rows, blocks, block] each, as ``qh`` (where there is one) and ``qs``."""
    if name == "Q8_0":
        return [(codes.astype(np.int16) - 127).astype(np.int8).view(np.uint8)]
    if name in ("Q4_K", "Q5_K"):
        pairs = codes.reshape(*codes.shape[:2], 4, 2, 32)
        low = _nibbles(pairs[:, :, :, 0], pairs[:, :, :, 1]).reshape(*codes.shape[:2], 128)
        high = np.packbits(codes.reshape(*codes.shape[:2], 8, 32) >> 4, axis=2, bitorder="little")[:, :, 0]
        return [low] if name == "Q4_K" else [high, low]
    low = _nibbles(codes[:, :, :16], codes[:, :, 16:])
    return [np.packbits(codes >> 4, axis=2, bitorder="little"), low] if name.startswith("Q5") else [low]


def _nibbles(low: Bytes, high: Bytes) -> Bytes:
    """The low four bits of two arrays in one byte each."""
    return ((low & 15) | ((high & 15) << 4)).astype(np.uint8)


def _pack_scales(steps: Integers, offsets: Integers) -> Bytes:
    """Eight steps and eight offsets of six bits in twelve bytes (``get_scale_min_k4``)."""
    s, o = steps.astype(np.uint8), offsets.astype(np.uint8)
    first = (s[:, :, :4] & 63) | ((s[:, :, 4:] >> 4) << 6)
    second = (o[:, :, :4] & 63) | ((o[:, :, 4:] >> 4) << 6)
    third = (s[:, :, 4:] & 15) | ((o[:, :, 4:] & 15) << 4)
    return np.concatenate([first, second, third], axis=2)


def _pack_six(codes: Bytes) -> tuple[Bytes, Bytes]:
    """``ql`` and ``qh`` of Q6_K: four quarters of each half of a block share their bytes."""
    q = codes.reshape(*codes.shape[:2], 2, 4, 32)
    low = np.concatenate([_nibbles(q[:, :, :, i], q[:, :, :, i + 2]) for i in (0, 1)], axis=3)
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    high = np.bitwise_or.reduce(q >> 4 << shifts, axis=3)
    return low.reshape(*codes.shape[:2], 128), high.reshape(*codes.shape[:2], 64)
