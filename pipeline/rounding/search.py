"""Steps and offsets worth trying for a group of weights, and the nearest levels.

Everything is laid out with the rows of the tensor last: one call works on all rows.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from pipeline.format.ggml import Floats
from pipeline.rounding.blocks import FORMATS, Format

_LARGEST = np.float32(65504)  # of float16
_TRIED = 8  # sizes of the step, from the smallest that pays to a little above the one that reaches the largest weight
_SMALLEST = {16: 0.72, 32: 0.8, 64: 0.88, 255: 0.97}  # by the number of levels


@cache
def half_table() -> Floats:
    """The nearest level of IQ4_NL of each half integer from -130 up: its midpoints are halves."""
    levels = FORMATS["IQ4_NL"].levels
    middles = (levels[1:] + levels[:-1]) / 2
    return levels[np.searchsorted(middles, (np.arange(521) - 260) / 2 + 0.25)]


def nearest(x: Floats, form: Format) -> Floats:
    """The nearest level of each number; ``x`` is overwritten."""
    if form.kind.name == "IQ4_NL":
        np.clip(x, -130, 130, out=x)
        x += 130
        x *= 2
        return half_table()[x.astype(np.int16)]
    np.rint(x, out=x)
    return np.clip(x, form.low, form.high, out=x)


def codes_of(levels: Floats, form: Format) -> npt.NDArray[np.uint8]:
    """The codes of levels."""
    if form.kind.name == "IQ4_NL":
        return np.searchsorted(form.levels, levels).astype(np.uint8)
    return (levels - np.float32(form.low)).astype(np.uint8)


def inverse(step: Floats) -> Floats:
    """1 / step, 0 where that is no finite number."""
    with np.errstate(divide="ignore", over="ignore"):
        inverted = np.float32(1) / step
    return np.where(np.isfinite(inverted), inverted, np.float32(0))


def halves(x: Floats) -> Floats:
    """Rounded to what float16 holds."""
    return np.clip(x, -_LARGEST, _LARGEST).astype(np.float16).astype(np.float32)


def fitted(weights: Floats, importance: Floats, form: Format) -> tuple[Floats, Floats]:
    """Steps and offsets, each fitted to the codes that a first guess leads to.

    Args:
        weights: float32 [group, rows].
        importance: float32 [group].

    Returns:
        step and offset, float32 [candidates, rows] each; the offset is 0 where the format has none.
    """
    step, offset = _guesses(weights, form)
    weight = importance[:, None]
    levels = nearest((weights - offset[:, None]) * inverse(step)[:, None], form)
    products = weight * levels
    squares, cross = (products * levels).sum(axis=1), (products * weights).sum(axis=1)
    if not form.offset:
        return np.where(squares > 0, cross / np.where(squares > 0, squares, 1), step), offset
    total = np.float32(importance.sum())
    firsts, mean = products.sum(axis=1), (weight * weights).sum(axis=0)
    spread = total * squares - firsts * firsts
    sound = spread > 1e-6 * total * squares
    slope = np.where(sound, (total * cross - firsts * mean) / np.where(sound, spread, 1), step)
    shift = (mean - slope * firsts) / total
    if form.top:  # a K-quant subtracts its offset, and stores it unsigned, like its step
        alone = cross / np.where(squares > 0, squares, 1)
        slope, shift = np.where(shift > 0, alone, slope), np.minimum(shift, 0)
        slope = np.maximum(slope, 0)
    return slope, shift


def guess_factors(form: Format) -> Floats:
    """Sizes of the step to try, as shares of the one that reaches the largest weight."""
    return np.linspace(_SMALLEST[len(form.levels)], 1.08, _TRIED, dtype=np.float32)


def _guesses(weights: Floats, form: Format) -> tuple[Floats, Floats]:
    factors = guess_factors(form)[:, None]
    if form.offset:
        low, high = weights.min(axis=0), weights.max(axis=0)
        if form.top:
            low = np.minimum(low, 0)
        width = (high - low) * factors
        # What a smaller step cannot reach is cut off on both sides, or on one.
        lows = [(low + high - width) / 2, np.broadcast_to(low, width.shape), high - width]
        return np.tile(width / np.float32(form.high), (3, 1)), np.concatenate(lows).astype(np.float32)
    at = np.abs(weights).argmax(axis=0)
    largest = np.take_along_axis(weights, at[None], axis=0) * factors
    step = np.concatenate([largest / np.float32(form.low), largest / np.float32(form.high)])
    return step, np.zeros_like(step)


def rounding_loss(weights: Floats, importance: Floats, step: Floats, offset: Floats, form: Format) -> Floats:
    """The weighted squared error of plain rounding, float32 [candidates, rows]."""
    levels = nearest((weights - offset[:, None]) * inverse(step)[:, None], form)
    levels *= step[:, None]
    levels += offset[:, None]
    levels -= weights
    levels *= levels
    loss: Floats = np.einsum("kgr,g->kr", levels, importance)
    return loss


def best(loss: Floats, count: int, step: Floats, offset: Floats) -> tuple[Floats, Floats]:
    """The steps and offsets of the ``count`` candidates with least loss in each row, [count, rows] each."""
    if count == 1:
        chosen = loss.argmin(axis=0)[None]
    else:
        chosen = np.argpartition(loss, count - 1, axis=0)[:count] if count < len(loss) else np.arange(len(loss))[:, None]
    return np.take_along_axis(step, chosen, axis=0), np.take_along_axis(offset, chosen, axis=0)
