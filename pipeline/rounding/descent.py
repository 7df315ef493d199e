"""Descent after the feedback: each code and each scale again, now that all others are known.

Feedback rounds a column knowing only those before it. Here every column moves to the level that is best beside all others
(cyclic coordinate descent, as QuantEase does, arXiv 2309.01885), and every group's step and offset to the least-squares fit of
its codes. No move makes the error on the shrunk second moment larger.
"""

from __future__ import annotations

import numpy as np

from pipeline.format.ggml import Floats
from pipeline.rounding.blocks import Format
from pipeline.rounding.feedback import Rounded
from pipeline.rounding.moments import Moment
from pipeline.rounding.search import inverse, nearest


def descend(done: Rounded, weights: Floats, moment: Moment, form: Format, sweeps: int) -> None:
    """Improve ``done`` in place.

    Args:
        weights: float32 [rows, columns], what was rounded.
        sweeps: how often each column gets its turn.
    """
    wanted = np.ascontiguousarray(weights[:, moment.order].T)
    groups = len(done.step)
    spread = np.repeat(np.arange(groups), form.group)
    missing = wanted - done.levels * done.step[spread] - done.offset[spread]
    gradient = moment.matrix @ missing
    for _ in range(sweeps):
        for group in range(groups):
            span = slice(group * form.group, (group + 1) * form.group)
            before = missing[span].copy()
            matrix = np.ascontiguousarray(moment.matrix[span, span])
            local = gradient[span].copy()
            _refit(done, group, missing[span], local, matrix, form)
            _move(done, group, wanted[span], missing[span], local, matrix, form)
            gradient += moment.matrix[:, span] @ (missing[span] - before)


def _refit(done: Rounded, group: int, missing: Floats, gradient: Floats, matrix: Floats, form: Format) -> None:
    """Step and offset by least squares for the codes as they are, where the stored numbers nearest to it lower the error."""
    levels = done.levels[group * form.group : (group + 1) * form.group]
    seen = matrix @ levels
    curve, slope = np.einsum("gr,gr->r", levels, seen), np.einsum("gr,gr->r", levels, gradient)
    step, offset = done.step[group], done.offset[group]
    if form.offset:
        total, across, height = float(matrix.sum()), seen.sum(axis=0), gradient.sum(axis=0)
        determinant = curve * total - across * across
        sound = determinant > 1e-6 * curve * total
        determinant = np.where(sound, determinant, 1)
        more = np.where(sound, (slope * total - height * across) / determinant, 0)
        lift = np.where(sound, (height * curve - slope * across) / determinant, 0)
    else:
        more, lift = np.where(curve > 0, slope / np.where(curve > 0, curve, 1), 0), np.zeros_like(step)
    new_step, new_offset = done.allowed(step + more, offset + lift, group * form.group // form.kind.block, form)
    change = -levels * (new_step - step) - (new_offset - offset)
    pull = matrix @ change
    worse = np.einsum("gr,gr->r", change, 2 * gradient + pull) >= 0
    change[:, worse], pull[:, worse] = 0, 0
    done.step[group], done.offset[group] = np.where(worse, step, new_step), np.where(worse, offset, new_offset)
    missing += change
    gradient += pull


def _move(done: Rounded, group: int, wanted: Floats, missing: Floats, gradient: Floats, matrix: Floats, form: Format) -> None:
    """Each column of a group to its best level, one after another."""
    step, offset = done.step[group], done.offset[group]
    inverted = inverse(step)
    levels = done.levels[group * form.group : (group + 1) * form.group]
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
