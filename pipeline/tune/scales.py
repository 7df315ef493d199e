"""The float16 scales and mins of ggml's blocks, apart from their codes: what a tuning may change of a finished tensor.

In each of these formats a weight is ``scale * code - min * offset`` with one scale (and min) a block, so a block whose scale is
set to one and whose min is set to zero dequantizes to its codes. ggml's own kernel does that; no format is unpacked here.
Source of the offsets: the block structures of ``ggml-common.h``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.gguf.types import GGMLType
from pipeline.format import ggml
from pipeline.format.ggml import Bytes, Floats

# Type -> where in a block its float16 scale stands, and its float16 min.
_PLACES: dict[str, tuple[int, int | None]] = {
    "Q4_0": (0, None), "Q4_1": (0, 2), "Q5_0": (0, None), "Q5_1": (0, 2), "Q8_0": (0, None), "IQ4_NL": (0, None),
    "Q2_K": (80, 82), "Q3_K": (108, None), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208, None), "IQ4_XS": (0, None),
}  # fmt: skip
_SAME = 16  # weights of a block that share one offset at least (Q2_K has the shortest groups)


@dataclass(frozen=True, slots=True)
class ScaledCodes:
    """One tensor as scales times codes.

    Attributes:
        scales: float32 [rows, blocks], each a float16 value.
        codes: int8 or int16 [rows, row length]: the weights where all scales are one and all mins zero.
        mins: float32 [rows, blocks], each a float16 value; None where the format has none.
        offsets: float32 [rows, groups]: what a min of one adds to each weight of a group of 16.
    """

    scales: Floats
    codes: np.ndarray[tuple[int, int], np.dtype[np.int8 | np.int16]]
    mins: Floats | None = None
    offsets: Floats | None = None


def has_scales(kind: GGMLType) -> bool:
    """Whether a tensor of this type can be split into scales and codes."""
    return kind.name in _PLACES


def split(raw: Bytes, kind: GGMLType, row_length: int) -> ScaledCodes:
    """The scales and codes of rows as they stand in a file, uint8 [rows, bytes per row]."""
    at, min_at = _PLACES[kind.name]
    blocks = raw.reshape(len(raw), -1, kind.nbytes).copy()
    scales = _get(blocks, at)
    mins = None if min_at is None else _get(blocks, min_at)
    _set(blocks, at, np.ones_like(scales))
    if min_at is not None:
        _set(blocks, min_at, np.zeros_like(scales))
    codes = ggml.to_float(blocks.reshape(len(raw), -1), kind, row_length)
    narrow = np.int8 if np.abs(codes).max(initial=0) <= 127 else np.int16
    if min_at is None:
        return ScaledCodes(scales, codes.astype(narrow))
    _set(blocks, at, np.zeros_like(scales))
    _set(blocks, min_at, np.ones_like(scales))
    offsets = ggml.to_float(blocks.reshape(len(raw), -1), kind, row_length)[:, ::_SAME]
    return ScaledCodes(scales, codes.astype(narrow), mins, np.ascontiguousarray(offsets))


def join(raw: Bytes, kind: GGMLType, scales: Floats, mins: Floats | None) -> Bytes:
    """The same rows with other scales and mins, rounded to float16; every other byte stays. OverflowError: one is not finite."""
    at, min_at = _PLACES[kind.name]
    blocks = raw.reshape(len(raw), -1, kind.nbytes).copy()
    _set(blocks, at, scales)
    if min_at is not None and mins is not None:
        _set(blocks, min_at, mins)
    return blocks.reshape(raw.shape)


def _get(blocks: Bytes, at: int) -> Floats:
    return np.ascontiguousarray(blocks[:, :, at : at + 2]).view("<f2")[:, :, 0].astype(np.float32)


def _set(blocks: Bytes, at: int, values: Floats) -> None:
    with np.errstate(over="ignore"):
        half = values.astype("<f2")
    if not np.isfinite(half).all():
        raise OverflowError("a scale does not fit float16")
    blocks[:, :, at : at + 2] = half[:, :, None].view(np.uint8)
