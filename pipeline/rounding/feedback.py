"""Rounding with error feedback (GPTQ, arXiv 2210.17323) into blocks whose scales are searched on the way.

Columns are rounded one after another, and what each loses is made good by those that follow. When a group of columns begins, it
is known what the errors of all before ask of it; its step is searched there, and the in-group feedback is run for each
candidate: the sum of the squared distances from what is asked, times their cost, is what the loss grows by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.format.ggml import Floats
from pipeline.rounding.blocks import Blocks, Format
from pipeline.rounding.kernels import Kernels, kernels
from pipeline.rounding.moments import Moment
from pipeline.rounding.search import codes_of, halves, inverse, nearest

_PANEL = 128  # columns for which all errors before are added up in one product; a K-quant's block at least


def _kept(form: Format) -> int:
    """Candidates that are tried with feedback. With many levels the first is as good as any."""
    return 4 if len(form.levels) <= 32 else 1


@dataclass(slots=True)
class Rounded:
    """A tensor while it is rounded: rows last, columns in the order of a ``Moment``.

    Attributes:
        wanted: float32 [columns, rows], the weights.
        levels: float32 [columns, rows].
        missing: float32 [columns, rows], ``wanted`` less what levels, steps and offsets stand for.
        step, offset: float32 [groups, rows], what a level is multiplied with and moved by.
        unit, offset_unit: float32 [blocks, rows] of a K-quant: ``step`` and ``-offset`` are integer multiples of them.
    """

    wanted: Floats
    levels: Floats
    missing: Floats
    step: Floats
    offset: Floats
    unit: Floats
    offset_unit: Floats

    def allowed(self, step: Floats, offset: Floats, block: int, form: Format) -> tuple[Floats, Floats]:
        """Rounded to steps and offsets that the format can store in a block."""
        if not form.top:
            return halves(step), halves(offset) if form.offset else offset
        return _multiple(step, self.unit[block], form), -_multiple(-offset, self.offset_unit[block], form)


def _multiple(x: Floats, unit: Floats, form: Format) -> Floats:
    multiples: Floats = np.clip(np.rint(x * inverse(unit)), 0 if form.offset else -form.top, form.top)
    return multiples * unit


def panels(columns: int, form: Format) -> list[slice]:
    """The columns in parts that hold whole blocks."""
    size = max(_PANEL, form.kind.block)
    return [slice(at, min(at + size, columns)) for at in range(0, columns, size)]


def round_with_feedback(weights: Floats, moment: Moment, form: Format) -> Rounded:
    """Round rows.

    Args:
        weights: float32 [rows, columns], finite.
        moment: of the inputs, for all rows.
    """
    wanted = np.ascontiguousarray(weights[:, moment.order].T)
    columns, rows = wanted.shape
    blocks, groups = columns // form.kind.block, columns // form.group
    small = (np.zeros((n, rows), np.float32) for n in (groups, groups, blocks, blocks))
    done = Rounded(wanted, np.empty_like(wanted), np.empty_like(wanted), *small)
    for panel in panels(columns, form):
        asked = wanted[panel] + moment.follow[panel, : panel.start] @ done.missing[: panel.start]
        _round_panel(done, asked, panel, moment, form)
    return done


def _round_panel(done: Rounded, asked: Floats, panel: slice, moment: Moment, form: Format) -> None:
    """``asked``: float32 [columns of the panel, rows], the weights and what the errors before the panel ask of them."""
    use = kernels()
    for start in range(panel.start, panel.stop, form.group):
        span, inside = slice(start, start + form.group), start - panel.start
        here = asked[inside : inside + form.group]
        block, cost = start // form.kind.block, moment.cost[span]
        if inside:
            here += moment.follow[span, panel.start : start] @ done.missing[panel.start : start]
        if form.top and start % form.kind.block == 0:
            end = start + form.kind.block
            done.unit[block], done.offset_unit[block] = _units(asked[inside:], moment.cost[start:end], form, use)
        step, offset = _candidates(here, cost, done, block, form, use)
        follow = np.ascontiguousarray(moment.follow[span, span])
        found = use.feed(here, done.wanted[span], follow, cost, step, offset, form)
        done.levels[span], done.missing[span], done.step[start // form.group], done.offset[start // form.group] = found


def _units(weights: Floats, importance: Floats, form: Format, use: Kernels) -> tuple[Floats, Floats]:
    """The float16 units of a K-quant's block, from the best step and offset of each of its groups."""
    found = []
    for at in range(0, form.kind.block, form.group):
        part, weight = weights[at : at + form.group], importance[at : at + form.group]
        step, offset = use.fitted(part, weight, form)
        found.append(use.best(use.rounding_loss(part, weight, step, offset, form), 1, step, offset))
    step, offset = (np.concatenate(parts) for parts in zip(*found, strict=True))
    top = np.float32(form.top)
    return halves(np.abs(step).max(axis=0) / top), halves(np.abs(offset).max(axis=0) / top)


def _candidates(
    weights: Floats, importance: Floats, done: Rounded, block: int, form: Format, use: Kernels
) -> tuple[Floats, Floats]:
    step, offset = use.fitted(weights, importance, form)
    if form.top:  # the neighbours too, since a unit is coarse for a group with a small step
        step, offset = use.best(use.rounding_loss(weights, importance, step, offset, form), _kept(form), step, offset)
        step = np.concatenate([step + shift * done.unit[block] for shift in (-1, 0, 1)])
        offset = np.tile(offset, (3, 1))
        if form.offset:
            levels = nearest((weights - offset[:, None]) * inverse(step)[:, None], form)
            offset = np.einsum("kgr,g->kr", weights - levels * step[:, None], importance) / np.float32(importance.sum())
    step, offset = done.allowed(step, offset, block, form)
    return use.best(use.rounding_loss(weights, importance, step, offset, form), _kept(form), step, offset)


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
