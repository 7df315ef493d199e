"""The innermost loops of rounding, compiled by numba: the functions of ``search`` and ``inner``, by the same formulas.

They work on some rows at a time, whose numbers stay in the nearest cache. A product and a sum become one instruction, so that
single codes can differ from NumPy's. What was compiled is kept in the user's cache.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from platformdirs import user_cache_path

from pipeline.format.ggml import Floats
from pipeline.rounding.blocks import Format
from pipeline.rounding.search import guess_factors

numba.config.CACHE_DIR = numba.config.CACHE_DIR or str(user_cache_path("sprig", appauthor=False) / "numba")

_TILE = 96  # rows
_FEW = np.float32(1e-6)
_Levels = tuple[np.float32, np.float32, Floats, Floats]  # the lowest, the highest, and of uneven ones midpoints and gaps

_compiled = numba.njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")


def _levels_of(form: Format) -> _Levels:
    gaps = np.diff(form.levels)
    uneven = len(set(gaps.tolist())) > 1
    middles = (form.levels[1:] + form.levels[:-1]) / 2
    return np.float32(form.low), np.float32(form.high), (middles if uneven else middles[:0]), gaps


@_compiled
def _snap(x: Any, y: Any, n: int, low: Any, high: Any, middles: Any, gaps: Any) -> None:
    """The nearest level of each of n numbers of ``x``, into ``y``."""
    if len(middles) == 0:
        for r in range(n):
            y[r] = np.rint(min(max(x[r], low), high))
        return
    for r in range(n):
        y[r] = low
    for k in range(len(middles)):
        middle, gap = middles[k], gaps[k]
        for r in range(n):
            y[r] += gap if x[r] > middle else np.float32(0)


@_compiled
def _inverse(step: Any, out: Any, n: int) -> None:
    for r in range(n):
        inverted = np.float32(1) / step[r]
        out[r] = inverted if abs(inverted) < np.float32(np.inf) else np.float32(0)


@_compiled
def _guess(w: Any, factors: Any, with_offset: bool, under_zero: bool, low: Any, high: Any, step: Any, offset: Any) -> None:
    """As ``search.guesses``, of a tile."""
    size, n = w.shape
    tried = len(factors)
    if with_offset:
        least, most = w[0].copy(), w[0].copy()
        for j in range(1, size):
            for r in range(n):
                least[r] = min(least[r], w[j, r])
                most[r] = max(most[r], w[j, r])
        if under_zero:
            for r in range(n):
                least[r] = min(least[r], np.float32(0))
        for k in range(tried):
            for r in range(n):
                width = (most[r] - least[r]) * factors[k]
                step[k, r] = step[k + tried, r] = step[k + 2 * tried, r] = width / high
                offset[k, r] = (least[r] + most[r] - width) * np.float32(0.5)
                offset[k + tried, r] = least[r]
                offset[k + 2 * tried, r] = most[r] - width
        return
    largest = w[0].copy()
    for j in range(1, size):
        for r in range(n):
            largest[r] = w[j, r] if abs(w[j, r]) > abs(largest[r]) else largest[r]
    for k in range(tried):
        for r in range(n):
            step[k, r] = largest[r] * factors[k] / low
            step[k + tried, r] = largest[r] * factors[k] / high
            offset[k, r] = offset[k + tried, r] = np.float32(0)


@_compiled
def _fitted(w: Any, importance: Any, factors: Any, with_offset: bool, top: bool, low: Any, high: Any, middles: Any, gaps: Any,
            step: Any, offset: Any) -> None:  # fmt: skip
    size, rows = w.shape
    zero, total = np.float32(0), importance.sum()
    x, level, inverted = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    squares, cross, firsts, mean = np.empty((4, _TILE), np.float32)
    for at in range(0, rows, _TILE):
        n = min(_TILE, rows - at)
        here = w[:, at : at + n].copy()
        _guess(here, factors, with_offset, top, low, high, step[:, at : at + n], offset[:, at : at + n])
        for k in range(len(step)):
            s, o = step[k, at : at + n], offset[k, at : at + n]
            _inverse(s, inverted, n)
            squares[:], cross[:], firsts[:], mean[:] = zero, zero, zero, zero
            for j in range(size):
                weight = importance[j]
                for r in range(n):
                    x[r] = (here[j, r] - o[r]) * inverted[r]
                _snap(x, level, n, low, high, middles, gaps)
                for r in range(n):
                    product = weight * level[r]
                    squares[r] += product * level[r]
                    cross[r] += product * here[j, r]
                if with_offset:
                    for r in range(n):
                        firsts[r] += weight * level[r]
                        mean[r] += weight * here[j, r]
            for r in range(n):
                alone = cross[r] / squares[r] if squares[r] > zero else s[r]
                if with_offset:
                    spread = total * squares[r] - firsts[r] * firsts[r]
                    slope = (total * cross[r] - firsts[r] * mean[r]) / spread if spread > _FEW * total * squares[r] else s[r]
                    shift = (mean[r] - slope * firsts[r]) / total
                    if top:
                        slope = max(alone if shift > zero else slope, zero)
                        shift = min(shift, zero)
                    s[r], o[r] = slope, shift
                else:
                    s[r] = alone


@_compiled
def _rounding_loss(w: Any, importance: Any, step: Any, offset: Any, low: Any, high: Any, middles: Any, gaps: Any, loss: Any) -> None:
    size, rows = w.shape
    x, level, inverted = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    for at in range(0, rows, _TILE):
        n = min(_TILE, rows - at)
        here = w[:, at : at + n].copy()
        for k in range(len(step)):
            s, o, lost = step[k, at : at + n], offset[k, at : at + n], loss[k, at : at + n]
            _inverse(s, inverted, n)
            lost[:] = np.float32(0)
            for j in range(size):
                weight = importance[j]
                for r in range(n):
                    x[r] = (here[j, r] - o[r]) * inverted[r]
                _snap(x, level, n, low, high, middles, gaps)
                for r in range(n):
                    error = level[r] * s[r] + o[r] - here[j, r]
                    lost[r] += weight * error * error


@_compiled
def _best(loss: Any, step: Any, offset: Any, kept_step: Any, kept_offset: Any) -> None:
    """The candidates with least loss of each row, the best first."""
    tried, rows = loss.shape
    count = len(kept_step)
    order = np.empty(count, np.int64)
    for r in range(rows):
        found = 0
        for k in range(tried):
            place = found
            while place > 0 and loss[k, r] < loss[order[place - 1], r]:
                place -= 1
            if place < count:
                for i in range(min(found, count - 1), place, -1):
                    order[i] = order[i - 1]
                order[place] = k
                found = min(found + 1, count)
        for i in range(count):
            kept_step[i, r], kept_offset[i, r] = step[order[i], r], offset[order[i], r]


@_compiled
def _add(x: Any, row: Any, errors: Any, count: int, n: int) -> None:
    """``x += row[:count] @ errors[:count]``, of n numbers."""
    whole = count - count % 4
    for i in range(0, whole, 4):
        a, b, c, d = row[i], row[i + 1], row[i + 2], row[i + 3]
        for r in range(n):
            x[r] += a * errors[i, r] + b * errors[i + 1, r] + c * errors[i + 2, r] + d * errors[i + 3, r]
    for i in range(whole, count):
        for r in range(n):
            x[r] += row[i] * errors[i, r]


@_compiled
def _feed(asked: Any, wanted: Any, follow: Any, cost: Any, step: Any, offset: Any, low: Any, high: Any, middles: Any, gaps: Any,
          levels: Any, missing: Any, kept_step: Any, kept_offset: Any) -> None:  # fmt: skip
    size, rows = asked.shape
    x, y, inverted, loss, least = np.empty((5, _TILE), np.float32)
    own, errors = np.empty((size, _TILE), np.float32), np.empty((size, _TILE), np.float32)
    for at in range(0, rows, _TILE):
        n = min(_TILE, rows - at)
        for k in range(len(step)):
            s, o = step[k, at : at + n], offset[k, at : at + n]
            _inverse(s, inverted, n)
            loss[:] = np.float32(0)
            for j in range(size):
                for r in range(n):
                    x[r] = asked[j, at + r]
                _add(x, follow[j], errors, j, n)
                for r in range(n):
                    y[r] = (x[r] - o[r]) * inverted[r]
                _snap(y, own[j], n, low, high, middles, gaps)
                for r in range(n):
                    value = own[j, r] * s[r] + o[r]
                    distance = x[r] - value
                    loss[r] += cost[j] * distance * distance
                    errors[j, r] = wanted[j, at + r] - value
            for r in range(n):
                better = k == 0 or loss[r] < least[r]
                kept_step[at + r] = s[r] if better else kept_step[at + r]
                kept_offset[at + r] = o[r] if better else kept_offset[at + r]
                y[r] = np.float32(1) if better else np.float32(0)
                least[r] = loss[r] if better else least[r]
            for j in range(size):
                for r in range(n):
                    levels[j, at + r] = own[j, r] if y[r] > 0 else levels[j, at + r]
                    missing[j, at + r] = errors[j, r] if y[r] > 0 else missing[j, at + r]


@_compiled
def _move(levels: Any, wanted: Any, missing: Any, gradient: Any, matrix: Any, step: Any, offset: Any,
          low: Any, high: Any, middles: Any, gaps: Any) -> None:  # fmt: skip
    size, rows = missing.shape
    x, inverted = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    changes = np.empty((size, _TILE), np.float32)
    for at in range(0, rows, _TILE):
        n = min(_TILE, rows - at)
        s, o = step[at : at + n], offset[at : at + n]
        _inverse(s, inverted, n)
        for j in range(size):
            for r in range(n):
                x[r] = gradient[j, at + r]
            _add(x, matrix[j], changes, j, n)
            for r in range(n):
                x[r] = (wanted[j, at + r] - missing[j, at + r] + x[r] / matrix[j, j] - o[r]) * inverted[r]
            _snap(x, levels[j, at : at + n], n, low, high, middles, gaps)
            for r in range(n):
                changes[j, r] = wanted[j, at + r] - (levels[j, at + r] * s[r] + o[r]) - missing[j, at + r]
        for j in range(size):
            for r in range(n):
                missing[j, at + r] += changes[j, r]


def fitted(weights: Floats, importance: Floats, form: Format) -> tuple[Floats, Floats]:
    """As ``search.fitted``."""
    factors = guess_factors(form)
    shape = (len(factors) * (3 if form.offset else 2), weights.shape[1])
    step, offset = np.empty(shape, np.float32), np.empty(shape, np.float32)
    _fitted(weights, importance, factors, form.offset, form.top > 0 and form.offset, *_levels_of(form), step, offset)
    return step, offset


def rounding_loss(weights: Floats, importance: Floats, step: Floats, offset: Floats, form: Format) -> Floats:
    """As ``search.rounding_loss``."""
    loss = np.empty_like(step)
    _rounding_loss(weights, importance, step, offset, *_levels_of(form), loss)
    return loss


def best(loss: Floats, count: int, step: Floats, offset: Floats) -> tuple[Floats, Floats]:
    """As ``search.best``."""
    shape = (min(count, len(loss)), loss.shape[1])
    kept_step, kept_offset = np.empty(shape, np.float32), np.empty(shape, np.float32)
    _best(loss, step, offset, kept_step, kept_offset)
    return kept_step, kept_offset


def feed(
    asked: Floats, wanted: Floats, follow: Floats, cost: Floats, step: Floats, offset: Floats, form: Format
) -> tuple[Floats, Floats, Floats, Floats]:
    """As ``inner.feed``."""
    levels, missing = np.empty_like(asked), np.empty_like(asked)
    kept_step, kept_offset = np.empty_like(step[0]), np.empty_like(offset[0])
    _feed(asked, wanted, follow, cost, step, offset, *_levels_of(form), levels, missing, kept_step, kept_offset)
    return levels, missing, kept_step, kept_offset


def move(
    levels: Floats, wanted: Floats, missing: Floats, gradient: Floats, matrix: Floats, step: Floats, offset: Floats, form: Format
) -> None:
    """As ``inner.move``."""
    _move(levels, wanted, missing, gradient, matrix, step, offset, *_levels_of(form))
