"""What rounding asks of a second moment of activations: shrinkage, the feedback of errors, an order of columns, an error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.format.ggml import Floats
from pipeline.rounding.blocks import Format

Order = npt.NDArray[np.intp]
_FLOOR = 1e-6  # of the mean diagonal: what a column counts that no token used


@dataclass(frozen=True, slots=True)
class Moment:
    """A second moment ``sum x x^T`` that was shrunk towards its diagonal, in the order in which columns are rounded.

    Attributes:
        matrix: float32 [columns, columns], symmetric, positive definite.
        factor: float32 [columns, columns], upper triangular, ``factor.T @ factor`` is the inverse of ``matrix``.
        order: the column that stands at each place.
    """

    matrix: Floats
    factor: Floats
    order: Order


def moment(hessian: Floats, shrinkage: float, form: Format) -> Moment:
    """Shrink a second moment and factor it.

    The off-diagonal is multiplied by ``1 - shrinkage``: what few tokens say about pairs of columns is noisy, and error feedback
    trusts it. All is computed on the correlations, so that float32 is enough also where single columns are huge.

    Args:
        hessian: float32 [columns, columns].
        shrinkage: above 0, at most 1, which leaves only the diagonal.
        form: the order keeps its blocks together.

    Raises:
        FloatingPointError: it is not finite, or not positive definite.
    """
    diagonal = np.diagonal(hessian).astype(np.float64)
    if not np.isfinite(hessian).all() or not (mean := float(diagonal.mean())) > 0:
        raise FloatingPointError("the second moment is empty or not finite")
    diagonal = np.maximum(diagonal, _FLOOR * mean)
    order = column_order(diagonal, form)
    scale = np.sqrt(diagonal[order]).astype(np.float32)
    correlation = hessian[np.ix_(order, order)] / scale[:, None] / scale
    correlation *= np.float32(1 - shrinkage)
    np.fill_diagonal(correlation, 1)
    try:
        # A = R R^T with R upper triangular, from the Cholesky factor of the matrix read backwards; the inverse is R^-T R^-1.
        upper = np.ascontiguousarray(np.linalg.cholesky(correlation[::-1, ::-1])[::-1, ::-1])
    except np.linalg.LinAlgError:
        raise FloatingPointError("the second moment is not positive definite") from None
    factor = _inverse_upper(upper) / scale
    return Moment(correlation * scale[:, None] * scale, np.ascontiguousarray(factor), order)


def _inverse_upper(matrix: Floats) -> Floats:
    """The inverse of an upper triangular matrix, by halves."""
    n = len(matrix)
    if n <= 64:
        return np.linalg.inv(matrix)
    half = n // 2
    inverse = np.zeros_like(matrix)
    inverse[:half, :half] = a = _inverse_upper(matrix[:half, :half])
    inverse[half:, half:] = b = _inverse_upper(matrix[half:, half:])
    inverse[:half, half:] = -(a @ matrix[:half, half:]) @ b
    return inverse


def column_order(diagonal: npt.NDArray[np.float64], form: Format) -> Order:
    """Important columns first, since the errors of the first are made good by all that follow. Blocks stay together, and in
    them groups. (GPTQ's "act order", by blocks.)"""
    groups = diagonal.reshape(-1, form.kind.block // form.group, form.group)
    within = np.argsort(-groups, axis=2, kind="stable")
    of_groups = np.argsort(-groups.sum(axis=2), axis=1, kind="stable")
    of_blocks = np.argsort(-groups.sum(axis=(1, 2)), kind="stable")
    columns = np.arange(diagonal.size).reshape(groups.shape)
    columns = np.take_along_axis(columns, within, axis=2)
    columns = np.take_along_axis(columns, of_groups[:, :, None], axis=1)
    return columns[of_blocks].reshape(-1)


def output_error(difference: Floats, hessian: Floats) -> float:
    """``trace(D H D^T)``: the squared error of the outputs, summed over rows and the tokens in ``hessian``."""
    return float(np.einsum("rc,rc->", difference @ hessian, difference, dtype=np.float64))
