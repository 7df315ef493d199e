"""Weights that lie on the grid of a block format already: trained for it, or dequantized and stored again.

Rounding them anew picks other scales and loses a second time. Here the step (and offset) of each block are looked for such that
every weight of the block comes out, to the last bit of the type in which the checkpoint stores it. The largest and the smallest
weight of a block bound them to a few float16 numbers each, and all of these are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from agent.device.processor import cores
from agent.gguf.types import GGMLType
from pipeline.format.ggml import Bytes, Floats
from pipeline.rounding.blocks import FORMATS, Blocks, Format, pack
from pipeline.rounding.encoder import RoundedTensor
from pipeline.rounding.search import inverse

# Levels (or spans of levels) that the largest weight of a block may stand for, the likeliest first.
_TOPS: dict[str, tuple[int, ...]] = {
    "Q4_0": (-8, 7, -7, 6, -6),
    "Q5_0": (-16, 15, -8, 7, -15, -7),
    "Q8_0": (127, 8, 7, 16, 15),
    "Q4_1": (15, 14, 13),
    "Q5_1": (31, 15, 30),
}
Halves = npt.NDArray[np.float16]
Storage = Callable[[Floats], Floats]  # rounds to what the checkpoint's type holds

_ROWS_AT_ONCE = 64
_FEW_BITS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1")  # what Q8_0 loses is not worth another kernel than ggml's
_STRANGERS = 8
_LOOK = 3  # rows that show whether the others are worth a look


class GridEncoder:
    """The encoder ``ggml``: its own kernels, but for tensors that lie on the grid of their type already."""

    name = "ggml"
    inputs = None

    def __init__(self) -> None:
        self.decisions: dict[str, RoundedTensor] = {}
        self._strangers = 0

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Nothing: it knows no model."""

    def errors(self, name: str, weights: Floats, kinds: Sequence[GGMLType]) -> Mapping[str, float]:
        """None: all types are ggml's."""
        return {}

    def wants(self, name: str, kind: GGMLType, look: Callable[[], Floats]) -> bool:
        """Whether a few rows lie on the type's grid. After some tensors that do not, none is looked at any more."""
        if kind.name not in _FEW_BITS or self._strangers >= _STRANGERS:
            return False
        found = looks_on_grid(look(), FORMATS[kind.name])
        self._strangers += 0 if found else 1
        return found

    def encode(self, name: str, weights: Floats, kind: GGMLType) -> Bytes | None:
        """As ``TensorEncoder.encode``."""
        raw = exact(weights, FORMATS[kind.name])
        if raw is not None:
            self.decisions[name] = RoundedTensor(name, kind.name, "grid")
        return raw


def exact(weights: Floats, form: Format) -> Bytes | None:
    """The bytes of a tensor [..., rows, columns] that lies on the format's grid, else None."""
    rows = weights.reshape(-1, weights.shape[-1])
    blocks = on_grid(rows, form) if looks_on_grid(rows, form) else None
    return None if blocks is None else pack(blocks, form)


def looks_on_grid(weights: Floats, form: Format) -> bool:
    """Whether a few rows of float32 [rows, columns] lie on the format's grid."""
    if form.kind.name not in _TOPS or not len(weights):
        return False
    rows = np.unique(np.linspace(0, len(weights) - 1, _LOOK).astype(int))
    if not np.any(weights[rows]) or _has_too_many_values(weights[rows].reshape(-1, form.group), form):
        return False
    return all(on_grid(weights[row : row + 1], form) is not None for row in rows)


def _has_too_many_values(blocks: Floats, form: Format) -> bool:
    """Whether a block [n, group] holds more values than the format has levels: cheaply seen, and so of nearly all weights."""
    distinct = 1 + (np.diff(np.sort(blocks, axis=1), axis=1) != 0).sum(axis=1)
    return int(distinct.max()) > form.high - form.low + 1


def on_grid(weights: Floats, form: Format) -> Blocks | None:
    """The blocks of which the weights were made; None if a block is not on the format's grid.

    Args:
        weights: float32 [rows, columns], as a checkpoint of BF16, F16 or F32 gave them.
    """
    if form.kind.name not in _TOPS:
        return None

    def part(at: int) -> tuple[Bytes, Halves, Halves] | None:
        return _search(weights[at : at + _ROWS_AT_ONCE].reshape(-1, form.group), form)

    first = part(0)
    if first is None:
        return None
    with ThreadPoolExecutor(cores(), thread_name_prefix="grid") as pool:
        found = [first, *pool.map(part, range(_ROWS_AT_ONCE, len(weights), _ROWS_AT_ONCE))]
    parts = [one for one in found if one is not None]
    if len(parts) < len(found):
        return None
    shape, per_row = weights.shape, weights.shape[1] // form.group
    codes, step, offset = (np.concatenate(p) for p in zip(*parts, strict=True))
    return Blocks(codes.reshape(shape), step.reshape(-1, per_row), offset.reshape(-1, per_row) if form.offset else None)


def _search(blocks: Floats, form: Format) -> tuple[npt.NDArray[np.uint8], Halves, Halves] | None:
    """Codes, step and offset of blocks [n, group]; None as soon as one block has none."""
    store = _storage(blocks)
    # ggml gives a block of zeros the step 0 / -8.
    nothing = np.float32(-0.0 if form.low < 0 and form.kind.name != "Q8_0" else 0.0)
    step, offset = np.full(len(blocks), nothing), np.zeros(len(blocks), np.float32)
    missing = np.flatnonzero((blocks != (blocks[:, :1] if form.offset else 0)).any(axis=1))
    if form.offset:
        offset[:] = blocks[:, 0]  # of blocks of one value; the others are overwritten
    for top in _TOPS[form.kind.name]:
        if not missing.size:
            break
        found, steps, offsets = _try(blocks[missing], top, store, form)
        step[missing[found]], offset[missing[found]] = steps[found], offsets[found]
        missing = missing[~found]
        if form.offset and len(missing) == len(blocks) and top != _TOPS[form.kind.name][0]:
            return None  # what is on no grid is seen soon
    levels = _levels(blocks, step[:, None], offset[:, None], form)
    if missing.size or (store(levels * step[:, None] + offset[:, None]) != blocks).any():
        return None
    return (levels - form.low).astype(np.uint8), step.astype(np.float16), offset.astype(np.float16)


def _levels(blocks: Floats, step: Floats, offset: Floats, form: Format) -> Floats:
    levels: Floats = np.clip(np.rint((blocks - offset) * inverse(step)), form.low, form.high)
    return levels


def _try(blocks: Floats, top: int, store: Storage, form: Format) -> tuple[npt.NDArray[np.bool_], Floats, Floats]:
    """For blocks in which the largest weight (or span) is ``top`` steps: which are matched, and by what step and offset. Where
    several match, the one nearest to the stored weights is taken: a coarse type does not tell them apart."""
    least = np.full(len(blocks), np.inf, np.float32)
    step, offset = np.zeros(len(blocks), np.float32), np.zeros(len(blocks), np.float32)
    low = np.zeros(len(blocks), np.float32)
    if form.offset:
        low, high = blocks.min(axis=1), blocks.max(axis=1)
    else:
        at = np.abs(blocks).argmax(axis=1)
        high = blocks[np.arange(len(blocks)), at]
    # Q8_0 always has a positive step; the others give the largest weight the level of larger size, which is negative.
    end = np.abs(high) if form.kind.name == "Q8_0" else high
    for m in _halves_near(low) if form.offset else low[None]:
        for d in _halves_near((end - m) / np.float32(top)):
            few = np.flatnonzero((store(m) == low) & (store(np.float32(top) * d + m) == end) & (d != 0))
            if not few.size:
                continue
            part, d_few, m_few = blocks[few], d[few, None], m[few, None]
            values = _levels(part, d_few, m_few, form) * d_few + m_few
            far = np.where((store(values) == part).all(axis=1), np.square(values - part).sum(axis=1), np.inf)
            better = far < least[few]
            few = few[better]
            step[few], offset[few], least[few] = d[few], m[few], far[better]
    return np.isfinite(least), step, offset


def _storage(weights: Floats) -> Storage:
    """How the checkpoint rounded: told from the bits that no weight uses."""
    if not (weights.view(np.uint32) & 0xFFFF).any():
        return to_bf16
    with np.errstate(over="ignore"):
        half = weights.astype(np.float16).astype(np.float32)
    return (lambda x: x.astype(np.float16).astype(np.float32)) if np.array_equal(half, weights) else (lambda x: x)


def to_bf16(x: Floats) -> Floats:
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def _halves_near(x: Floats) -> Floats:
    """The float16 numbers around each, [candidates, n], the nearest first."""
    with np.errstate(over="ignore"):
        bits = x.astype(np.float16).view(np.int16)
    steps = np.array(sorted(range(-4, 5), key=abs), np.int16)[:, None]
    near = (bits + steps).view(np.float16).astype(np.float32)
    return np.where(np.isfinite(near), near, np.float32(0))
