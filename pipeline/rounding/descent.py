"""Descent after the feedback: each code and each scale again, now that all others are known.

Feedback rounds a column knowing only those before it. Here every column moves to the level that is best beside all others
(cyclic coordinate descent, as QuantEase does, arXiv 2309.01885), and every group's step and offset to the least-squares fit of
its codes. No move makes the error on the shrunk second moment larger.
"""

from __future__ import annotations

import numpy as np

from pipeline.format.ggml import Floats
from pipeline.rounding.blocks import Format
from pipeline.rounding.feedback import Rounded, panels
from pipeline.rounding.kernels import Kernels, kernels
from pipeline.rounding.moments import Moment


def descend(done: Rounded, moment: Moment, form: Format, sweeps: int) -> None:
    """Improve ``done`` in place; each column gets its turn ``sweeps`` times."""
    use = kernels()
    for panel in panels(len(done.levels), form) * sweeps:
        gradient = moment.matrix[panel] @ done.missing
        for start in range(panel.start, panel.stop, form.group):
            span, inside = slice(start, start + form.group), start - panel.start
            before = done.missing[span].copy()
            here = gradient[inside : inside + form.group]
            _improve(done, start // form.group, here, np.ascontiguousarray(moment.matrix[span, span]), form, use)
            if span.stop < panel.stop:
                gradient[inside + form.group :] += moment.matrix[span.stop : panel.stop, span] @ (done.missing[span] - before)


def _improve(done: Rounded, group: int, gradient: Floats, matrix: Floats, form: Format, use: Kernels) -> None:
    """Step and offset by least squares, where the stored numbers nearest to it lower the error; then each column."""
    span = slice(group * form.group, (group + 1) * form.group)
    levels, missing, step, offset = done.levels[span], done.missing[span], done.step[group], done.offset[group]
    seen = matrix @ levels
    more, lift = use.refit(levels, gradient, seen, float(matrix.sum()), form)
    new_step, new_offset = done.allowed(step + more, offset + lift, span.start // form.kind.block, form)
    sums = matrix.sum(axis=1)
    use.settle(levels, missing, gradient, seen, sums, step, offset, new_step, new_offset, form)
    use.move(levels, done.wanted[span], missing, gradient, matrix, step, offset, form)
