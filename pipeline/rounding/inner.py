"""The innermost loops of rounding in NumPy: a group of columns with feedback, and again in the descent.

``pipeline.rounding.compiled`` has the same functions compiled. Everything is laid out with the rows of the tensor last: one call
works on all rows.
"""

from __future__ import annotations

import numpy as np

from pipeline.format.ggml import Floats
from pipeline.rounding.blocks import Format
from pipeline.rounding.search import inverse, nearest


def feed(
    asked: Floats, wanted: Floats, follow: Floats, cost: Floats, step: Floats, offset: Floats, form: Format
) -> tuple[Floats, Floats, Floats, Floats]:
    """Round a group with feedback inside it, with each candidate, and keep the best for each row.

    Args:
        asked: float32 [group, rows], the weights and what the errors of all groups before ask of them.
        wanted: float32 [group, rows], the weights.
        follow: float32 [group, group], how a column follows the errors of those before it (``Moment.follow``).
        cost: float32 [group], of a column's distance from what is asked.
        step, offset: float32 [candidates, rows].

    Returns:
        The best one's levels and errors (``wanted`` less what they stand for), [group, rows] each, its step and offset, [rows].
    """
    size, rows = asked.shape
    tried = len(step)
    flat, shift, inverted = step.reshape(-1), offset.reshape(-1), inverse(step).reshape(-1)
    errors, levels = np.empty((size, tried * rows), np.float32), np.empty((size, tried * rows), np.float32)
    loss = np.zeros(tried * rows, np.float32)
    for j in range(size):
        x = np.tile(asked[j], tried)
        if j:
            x += follow[j, :j] @ errors[:j]
        level = (x - shift) * inverted if form.offset else x * inverted
        levels[j] = level = nearest(level, form)
        value = level * flat
        if form.offset:
            value += shift
        x -= value
        x *= x
        x *= cost[j]
        loss += x
        np.subtract(np.tile(wanted[j], tried), value, out=errors[j])
    at = loss.reshape(tried, rows).argmin(axis=0) * rows + np.arange(rows)
    return levels[:, at], errors[:, at], flat[at], shift[at]


def refit(levels: Floats, gradient: Floats, seen: Floats, total: float, form: Format) -> tuple[Floats, Floats]:
    """By how much step and offset of a group miss their least-squares fit, the levels as they are.

    Args:
        levels: float32 [group, rows].
        gradient: float32 [group, rows], the second moment times all errors.
        seen: float32 [group, rows], the group's own part of the second moment times its levels.
        total: the sum of that part.

    Returns:
        What to add to the step and to the offset, float32 [rows] each.
    """
    curve, slope = np.einsum("gr,gr->r", levels, seen), np.einsum("gr,gr->r", levels, gradient)
    if not form.offset:
        return np.where(curve > 0, slope / np.where(curve > 0, curve, 1), 0), np.zeros_like(slope)
    across, height = seen.sum(axis=0), gradient.sum(axis=0)
    determinant = curve * total - across * across
    sound = determinant > 1e-6 * curve * total
    determinant = np.where(sound, determinant, 1)
    more = np.where(sound, (slope * total - height * across) / determinant, 0)
    return more, np.where(sound, (height * curve - slope * across) / determinant, 0)


def settle(
    levels: Floats, missing: Floats, gradient: Floats, seen: Floats, sums: Floats, step: Floats, offset: Floats,
    new_step: Floats, new_offset: Floats, form: Format,
) -> None:  # fmt: skip
    """Give each row of a group its new step and offset where that lowers the error.

    Args:
        levels, missing, gradient, seen: float32 [group, rows], as for ``refit`` and ``move``; all but ``levels`` and ``seen`` are
            overwritten where a row changes, and so are ``step`` and ``offset``.
        sums: float32 [group], of the rows of the group's own part of the second moment.
        step, offset, new_step, new_offset: float32 [rows].
    """
    wider, higher = step - new_step, offset - new_offset
    change, pull = levels * wider, seen * wider
    if form.offset:
        change += higher
        pull += sums[:, None] * higher
    worse = np.einsum("gr,gr->r", change, 2 * gradient + pull) >= 0
    change[:, worse], pull[:, worse] = 0, 0
    step[:], offset[:] = np.where(worse, step, new_step), np.where(worse, offset, new_offset)
    missing += change
    gradient += pull


def move(
    levels: Floats, wanted: Floats, missing: Floats, gradient: Floats, matrix: Floats, step: Floats, offset: Floats, form: Format
) -> None:
    """Move each column of a group to its best level, one after another, beside all others as they are.

    Args:
        levels, missing: float32 [group, rows], overwritten; ``missing`` is ``wanted`` less what the levels stand for.
        gradient: float32 [group, rows], the second moment times all errors.
        matrix: float32 [group, group], the group's own part of the second moment.
        step, offset: float32 [rows].
    """
    inverted = inverse(step)
    changes = np.empty_like(missing)
    for j in range(len(missing)):
        pull = gradient[j] + matrix[j, :j] @ changes[:j] if j else gradient[j]
        best = wanted[j] - missing[j] + pull / matrix[j, j]
        if form.offset:
            best -= offset
        best *= inverted
        levels[j] = level = nearest(best, form)
        value = level * step
        if form.offset:
            value += offset
        np.subtract(wanted[j] - value, missing[j], out=changes[j])
    missing += changes
