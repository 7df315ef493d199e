"""Rounding with error feedback (GPTQ, arXiv 2210.17323) into blocks whose scales are searched on the way.

Columns are rounded one after another, and what each loses is made good by those that follow. When a group of columns begins,
its weights carry the errors of all before it; its step is searched there, and the in-group feedback is run for each candidate:
the sum of squared errors over the factor's diagonal is what the loss grows by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.format.ggml import Floats
from pipeline.rounding.blocks import Blocks, Format
from pipeline.rounding.moments import Moment, Order
from pipeline.rounding.search import best, codes_of, fitted, halves, inverse, nearest, rounding_loss


def _kept(form: Format) -> int:
    """Candidates that are tried with feedback. With many levels the first is as good as any."""
    return 4 if len(form.levels) <= 32 else 1


@dataclass(slots=True)
class Rounded:
    """A tensor while it is rounded: rows last, columns in the order of a ``Moment``.

    Attributes:
        levels: float32 [columns, rows].
        step, offset: float32 [groups, rows], what a level is multiplied with and moved by.
        unit, offset_unit: float32 [blocks, rows] of a K-quant: ``step`` and ``-offset`` are integer multiples of them.
    """

    levels: Floats
    step: Floats
    offset: Floats
    unit: Floats
    offset_unit: Floats

    def allowed(self, step: Floats, offset: Floats, block: int, form: Format) -> tuple[Floats, Floats]:
        """Rounded to steps and offsets that the format can store in a block."""
        if not form.top:
            return halves(step), halves(offset)
        return _multiple(step, self.unit[block], form), -_multiple(-offset, self.offset_unit[block], form)


def _multiple(x: Floats, unit: Floats, form: Format) -> Floats:
    multiples: Floats = np.clip(np.rint(x * inverse(unit)), 0 if form.offset else -form.top, form.top)
    return multiples * unit


def round_with_feedback(weights: Floats, moment: Moment, form: Format) -> Rounded:
    """Round rows.

    Args:
        weights: float32 [rows, columns], finite.
        moment: of the inputs, for all rows.
    """
    rest = np.ascontiguousarray(weights[:, moment.order].T)
    columns, rows = rest.shape
    blocks, groups = columns // form.kind.block, columns // form.group
    done = Rounded(np.empty_like(rest), *(np.zeros((n, rows), np.float32) for n in (groups, groups, blocks, blocks)))
    importance = (1 / np.diagonal(moment.factor) ** 2).astype(np.float32)
    for group in range(groups):
        start, stop = group * form.group, (group + 1) * form.group
        block = start // form.kind.block
        if form.top and start % form.kind.block == 0:
            end = start + form.kind.block
            done.unit[block], done.offset_unit[block] = _units(rest[start:end], importance[start:end], form)
        step, offset = _candidates(rest[start:stop], importance[start:stop], done, block, form)
        factor = np.ascontiguousarray(moment.factor[start:stop, start:stop])
        levels, errors, chosen = _feed(rest[start:stop], factor, step, offset, form)
        done.levels[start:stop] = levels
        done.step[group], done.offset[group] = (a[chosen, np.arange(rows)] for a in (step, offset))
        if stop < columns:
            rest[stop:] -= moment.factor[start:stop, stop:].T @ errors
    return done


def _units(weights: Floats, importance: Floats, form: Format) -> tuple[Floats, Floats]:
    """The float16 units of a K-quant's block, from the best step and offset of each of its groups."""
    found = []
    for at in range(0, len(weights), form.group):
        part, weight = weights[at : at + form.group], importance[at : at + form.group]
        step, offset = fitted(part, weight, form)
        found.append(best(rounding_loss(part, weight, step, offset, form), 1, step, offset))
    step, offset = (np.concatenate(parts) for parts in zip(*found, strict=True))
    top = np.float32(form.top)
    return halves(np.abs(step).max(axis=0) / top), halves(np.abs(offset).max(axis=0) / top)


def _candidates(weights: Floats, importance: Floats, done: Rounded, block: int, form: Format) -> tuple[Floats, Floats]:
    step, offset = fitted(weights, importance, form)
    if form.top:  # the neighbours too, since a unit is coarse for a group with a small step
        step, offset = best(rounding_loss(weights, importance, step, offset, form), _kept(form), step, offset)
        step = np.concatenate([step + shift * done.unit[block] for shift in (-1, 0, 1)])
        offset = np.tile(offset, (3, 1))
        if form.offset:
            levels = nearest((weights - offset[:, None]) * inverse(step)[:, None], form)
            offset = np.einsum("kgr,g->kr", weights - levels * step[:, None], importance) / np.float32(importance.sum())
    step, offset = done.allowed(step, offset, block, form)
    kept = best(rounding_loss(weights, importance, step, offset, form), _kept(form), step, offset)
    return kept[0], kept[1]


def _feed(weights: Floats, factor: Floats, step: Floats, offset: Floats, form: Format) -> tuple[Floats, Floats, Order]:
    """Round a group with each candidate. Returns the best one's levels and errors, [group, rows], and which it was."""
    size, rows = weights.shape
    tried = len(step)
    flat, shift, inverted = step.reshape(-1), offset.reshape(-1), inverse(step).reshape(-1)
    errors = np.empty((size, tried * rows), np.float32)
    levels = np.empty_like(errors)
    for j in range(size):
        x = np.tile(weights[j], tried)
        if j:
            x -= factor[:j, j] @ errors[:j]
        level = (x - shift) * inverted if form.offset else x * inverted
        levels[j] = level = nearest(level, form)
        x -= level * flat
        if form.offset:
            x -= shift
        np.multiply(x, 1 / factor[j, j], out=errors[j])
    loss = np.einsum("gr,gr->r", errors, errors).reshape(tried, rows)
    chosen = loss.argmin(axis=0)
    at = chosen * rows + np.arange(rows)
    return levels[:, at], errors[:, at], chosen


def to_blocks(done: Rounded, moment: Moment, form: Format) -> Blocks:
    """The numbers that the format stores, columns in their own order."""
    columns, rows = done.levels.shape
    codes = np.empty((rows, columns), np.uint8)
    codes[:, moment.order] = codes_of(done.levels, form).T
    groups = moment.order[:: form.group] // form.group
    step, offset = np.empty((rows, len(groups)), np.float32), np.empty((rows, len(groups)), np.float32)
    step[:, groups], offset[:, groups] = done.step.T, done.offset.T
    if not form.top:
        return Blocks(codes, step.astype(np.float16), offset.astype(np.float16) if form.offset else None)
    blocks = moment.order[:: form.kind.block] // form.kind.block
    unit, offset_unit = np.empty((rows, len(blocks)), np.float32), np.empty((rows, len(blocks)), np.float32)
    unit[:, blocks], offset_unit[:, blocks] = done.unit.T, done.offset_unit.T
    per_block = form.kind.block // form.group
    steps = np.rint(step * inverse(np.repeat(unit, per_block, axis=1))).astype(np.int16)
    if not form.offset:
        return Blocks(codes, unit.astype(np.float16), steps=steps)
    offsets = np.rint(-offset * inverse(np.repeat(offset_unit, per_block, axis=1))).astype(np.int16)
    return Blocks(codes, unit.astype(np.float16), offset_unit.astype(np.float16), steps, offsets)
