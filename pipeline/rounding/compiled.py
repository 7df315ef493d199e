"""The innermost loops of rounding, compiled by numba: the functions of ``search`` and ``inner``, by the same formulas.

A product and a sum become one instruction, so that single codes can differ from NumPy's. Each loop over rows becomes vector
instructions: for that it reads whole rows by name, and scratch memory is an array of its own. What was compiled is kept in the
user's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import numba
import numpy as np

from pipeline.format.ggml import Floats
from pipeline.rounding.blocks import FORMATS, Format
from pipeline.rounding.compiled_folder import compiled_folder
from pipeline.rounding.search import guess_factors, half_table

numba.config.CACHE_DIR = numba.config.CACHE_DIR or str(compiled_folder())

_FEW = np.float32(1e-6)
_Levels = tuple[np.float32, np.float32, Floats]  # the lowest, the highest, and the table of uneven ones

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    # No sum is reordered, so a row comes out the same whatever rows are beside it.
    made: _Function = numba.njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")(function)
    return made


@cache
def _levels_of(name: str) -> _Levels:
    form = FORMATS[name]
    table = half_table() if name == "IQ4_NL" else np.empty(0, np.float32)
    return np.float32(form.low), np.float32(form.high), table


@_compiled
def _row(rows: int) -> Any:
    return np.empty(rows, np.float32)


@_compiled
def _fill(x: Any, y: Any) -> None:
    for r in range(len(x)):
        x[r] = y[r]


@_compiled
def _clear(x: Any) -> None:
    for r in range(len(x)):
        x[r] = np.float32(0)


@_compiled
def _snap(x: Any, y: Any, low: Any, high: Any, table: Any) -> None:
    """The nearest level of each number of ``x``, into ``y``."""
    if len(table) == 0:
        for r in range(len(x)):
            y[r] = np.rint(min(max(x[r], low), high))
    else:
        for r in range(len(x)):
            y[r] = table[np.int32((min(max(x[r], np.float32(-130)), np.float32(130)) + np.float32(130)) * np.float32(2))]


@_compiled
def _invert(step: Any, out: Any) -> None:
    for r in range(len(step)):
        inverted = np.float32(1) / step[r]
        out[r] = inverted if abs(inverted) < np.float32(np.inf) else np.float32(0)


@_compiled
def _guess(w: Any, factors: Any, with_offset: bool, unsigned: bool, low: Any, high: Any, step: Any, offset: Any) -> None:
    size, rows = w.shape
    tried = len(factors)
    least, most = _row(rows), _row(rows)
    _fill(least, w[0])
    _fill(most, w[0])
    for j in range(1, size):
        for r in range(rows):
            if with_offset:
                least[r] = min(least[r], w[j, r])
                most[r] = max(most[r], w[j, r])
            else:
                most[r] = w[j, r] if abs(w[j, r]) > abs(most[r]) else most[r]
    if unsigned:
        for r in range(rows):
            least[r] = min(least[r], np.float32(0))
    for k in range(tried):
        for r in range(rows):
            if with_offset:
                width = (most[r] - least[r]) * factors[k]
                step[k, r] = step[k + tried, r] = step[k + 2 * tried, r] = width / high
                offset[k, r] = (least[r] + most[r] - width) * np.float32(0.5)
                offset[k + tried, r] = least[r]
                offset[k + 2 * tried, r] = most[r] - width
            else:
                step[k, r], step[k + tried, r] = most[r] * factors[k] / low, most[r] * factors[k] / high
                offset[k, r] = offset[k + tried, r] = np.float32(0)


@_compiled
def _fitted(w: Any, importance: Any, total: Any, factors: Any, with_offset: bool, unsigned: bool, low: Any, high: Any, table: Any,
            step: Any, offset: Any) -> None:  # fmt: skip
    size, rows = w.shape
    zero = np.float32(0)
    x, level, inverted, squares = _row(rows), _row(rows), _row(rows), _row(rows)
    cross, firsts, mean = _row(rows), _row(rows), _row(rows)
    _guess(w, factors, with_offset, unsigned, low, high, step, offset)
    for k in range(len(step)):
        s, o = step[k], offset[k]
        _invert(s, inverted)
        _clear(squares)
        _clear(cross)
        _clear(firsts)
        _clear(mean)
        for j in range(size):
            weight, part = importance[j], w[j]
            for r in range(rows):
                x[r] = (part[r] - o[r]) * inverted[r]
            _snap(x, level, low, high, table)
            for r in range(rows):
                product = weight * level[r]
                squares[r] += product * level[r]
                cross[r] += product * part[r]
            if with_offset:
                for r in range(rows):
                    firsts[r] += weight * level[r]
                    mean[r] += weight * part[r]
        for r in range(rows):
            alone = cross[r] / squares[r] if squares[r] > zero else s[r]
            if with_offset:
                spread = total * squares[r] - firsts[r] * firsts[r]
                slope = (total * cross[r] - firsts[r] * mean[r]) / spread if spread > _FEW * total * squares[r] else s[r]
                shift = (mean[r] - slope * firsts[r]) / total
                if unsigned:
                    slope = max(alone if shift > zero else slope, zero)
                    shift = min(shift, zero)
                s[r], o[r] = slope, shift
            else:
                s[r] = alone


@_compiled
def _rounding_loss(w: Any, importance: Any, step: Any, offset: Any, low: Any, high: Any, table: Any, loss: Any) -> None:
    size, rows = w.shape
    x, level, inverted = _row(rows), _row(rows), _row(rows)
    for k in range(len(step)):
        s, o, lost = step[k], offset[k], loss[k]
        _invert(s, inverted)
        _clear(lost)
        for j in range(size):
            weight, part = importance[j], w[j]
            for r in range(rows):
                x[r] = (part[r] - o[r]) * inverted[r]
            _snap(x, level, low, high, table)
            for r in range(rows):
                error = level[r] * s[r] + o[r] - part[r]
                lost[r] += weight * error * error


@_compiled
def _best(loss: Any, step: Any, offset: Any, kept_step: Any, kept_offset: Any) -> None:
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
def _add(x: Any, row: Any, errors: Any, count: int) -> None:
    """``x += row[:count] @ errors[:count]``."""
    whole = count - count % 4
    for i in range(0, whole, 4):
        a, b, c, d = row[i], row[i + 1], row[i + 2], row[i + 3]
        first, second, third, fourth = errors[i], errors[i + 1], errors[i + 2], errors[i + 3]
        for r in range(len(x)):
            x[r] += a * first[r] + b * second[r] + c * third[r] + d * fourth[r]
    for i in range(whole, count):
        a, first = row[i], errors[i]
        for r in range(len(x)):
            x[r] += a * first[r]


@_compiled
def _feed(asked: Any, wanted: Any, follow: Any, cost: Any, step: Any, offset: Any, low: Any, high: Any, table: Any,
          levels: Any, missing: Any, kept_step: Any, kept_offset: Any) -> None:  # fmt: skip
    size, rows = asked.shape
    x, y, inverted, loss, least = _row(rows), _row(rows), _row(rows), _row(rows), _row(rows)
    own, errors = np.empty((size, rows), np.float32), np.empty((size, rows), np.float32)
    for k in range(len(step)):
        s, o = step[k], offset[k]
        _invert(s, inverted)
        _clear(loss)
        for j in range(size):
            level, error, weight, price = own[j], errors[j], wanted[j], cost[j]
            _fill(x, asked[j])
            _add(x, follow[j], errors, j)
            for r in range(rows):
                y[r] = (x[r] - o[r]) * inverted[r]
            _snap(y, level, low, high, table)
            for r in range(rows):
                value = level[r] * s[r] + o[r]
                distance = x[r] - value
                loss[r] += price * distance * distance
                error[r] = weight[r] - value
        for r in range(rows):
            better = k == 0 or loss[r] < least[r]
            kept_step[r], kept_offset[r] = (s[r], o[r]) if better else (kept_step[r], kept_offset[r])
            y[r], least[r] = (np.float32(1), loss[r]) if better else (np.float32(0), least[r])
        for j in range(size):
            for r in range(rows):
                levels[j, r] = own[j, r] if y[r] > 0 else levels[j, r]
                missing[j, r] = errors[j, r] if y[r] > 0 else missing[j, r]


@_compiled
def _refit(levels: Any, gradient: Any, seen: Any, total: Any, with_offset: bool, more: Any, lift: Any) -> None:
    size, rows = levels.shape
    curve, across, height = _row(rows), _row(rows), _row(rows)
    _clear(curve)
    _clear(across)
    _clear(height)
    _clear(more)
    for j in range(size):
        level, pull, own = levels[j], gradient[j], seen[j]
        for r in range(rows):
            curve[r] += level[r] * own[r]
            more[r] += level[r] * pull[r]
        if with_offset:
            for r in range(rows):
                across[r] += own[r]
                height[r] += pull[r]
    for r in range(rows):
        slope, lift[r] = more[r], np.float32(0)
        if with_offset:
            determinant = curve[r] * total - across[r] * across[r]
            sound = determinant > _FEW * curve[r] * total
            more[r] = (slope * total - height[r] * across[r]) / determinant if sound else np.float32(0)
            lift[r] = (height[r] * curve[r] - slope * across[r]) / determinant if sound else np.float32(0)
        else:
            more[r] = slope / curve[r] if curve[r] > np.float32(0) else np.float32(0)


@_compiled
def _settle(levels: Any, missing: Any, gradient: Any, seen: Any, sums: Any, step: Any, offset: Any, new_step: Any,
            new_offset: Any) -> None:  # fmt: skip
    size, rows = levels.shape
    wider, higher, gain = _row(rows), _row(rows), _row(rows)
    for r in range(rows):
        wider[r], higher[r], gain[r] = step[r] - new_step[r], offset[r] - new_offset[r], np.float32(0)
    for j in range(size):
        level, own, slope, total = levels[j], seen[j], gradient[j], sums[j]
        for r in range(rows):
            pull = own[r] * wider[r] + total * higher[r]
            gain[r] += (level[r] * wider[r] + higher[r]) * (np.float32(2) * slope[r] + pull)
    for r in range(rows):
        better = gain[r] < np.float32(0)
        wider[r], higher[r] = (wider[r], higher[r]) if better else (np.float32(0), np.float32(0))
        step[r], offset[r] = (new_step[r], new_offset[r]) if better else (step[r], offset[r])
    for j in range(size):
        level, own, slope, error, total = levels[j], seen[j], gradient[j], missing[j], sums[j]
        for r in range(rows):
            error[r] += level[r] * wider[r] + higher[r]
            slope[r] += own[r] * wider[r] + total * higher[r]


@_compiled
def _move(levels: Any, wanted: Any, missing: Any, gradient: Any, matrix: Any, step: Any, offset: Any,
          low: Any, high: Any, table: Any) -> None:  # fmt: skip
    size, rows = missing.shape
    x, inverted = _row(rows), _row(rows)
    changes = np.empty((size, rows), np.float32)
    _invert(step, inverted)
    for j in range(size):
        _fill(x, gradient[j])
        _add(x, matrix[j], changes, j)
        share = np.float32(1) / matrix[j, j]
        for r in range(rows):
            x[r] = (wanted[j, r] - missing[j, r] + x[r] * share - offset[r]) * inverted[r]
        _snap(x, levels[j], low, high, table)
        for r in range(rows):
            changes[j, r] = wanted[j, r] - (levels[j, r] * step[r] + offset[r]) - missing[j, r]
    for j in range(size):
        for r in range(rows):
            missing[j, r] += changes[j, r]


def fitted(weights: Floats, importance: Floats, form: Format) -> tuple[Floats, Floats]:
    """As ``search.fitted``."""
    factors = guess_factors(form)
    shape = (len(factors) * (3 if form.offset else 2), weights.shape[1])
    step, offset = np.empty(shape, np.float32), np.empty(shape, np.float32)
    _fitted(
        weights,
        importance,
        importance.sum(),
        factors,
        form.offset,
        form.top > 0 and form.offset,
        *_levels_of(form.kind.name),
        step,
        offset,
    )
    return step, offset


def rounding_loss(weights: Floats, importance: Floats, step: Floats, offset: Floats, form: Format) -> Floats:
    """As ``search.rounding_loss``."""
    loss = np.empty_like(step)
    _rounding_loss(weights, importance, step, offset, *_levels_of(form.kind.name), loss)
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
    _feed(asked, wanted, follow, cost, step, offset, *_levels_of(form.kind.name), levels, missing, kept_step, kept_offset)
    return levels, missing, kept_step, kept_offset


def refit(levels: Floats, gradient: Floats, seen: Floats, total: float, form: Format) -> tuple[Floats, Floats]:
    """As ``inner.refit``."""
    more, lift = np.empty_like(levels[0]), np.empty_like(levels[0])
    _refit(levels, gradient, seen, np.float32(total), form.offset, more, lift)
    return more, lift


def settle(
    levels: Floats, missing: Floats, gradient: Floats, seen: Floats, sums: Floats, step: Floats, offset: Floats,
    new_step: Floats, new_offset: Floats, form: Format,
) -> None:  # fmt: skip
    """As ``inner.settle``."""
    _settle(levels, missing, gradient, seen, sums, step, offset, new_step, new_offset)


def move(
    levels: Floats, wanted: Floats, missing: Floats, gradient: Floats, matrix: Floats, step: Floats, offset: Floats, form: Format
) -> None:
    """As ``inner.move``."""
    _move(levels, wanted, missing, gradient, matrix, step, offset, *_levels_of(form.kind.name))
