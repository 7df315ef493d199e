"""What rounding asks of a second moment of activations: shrinkage, the feedback of errors, an order of columns, an error."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from pipeline.format.ggml import Floats
from pipeline.rounding.blocks import Format

Order = npt.NDArray[np.intp]
_FLOOR = 1e-6  # of the mean diagonal: what a column counts that no token used


@dataclass(frozen=True, slots=True)
class Moment:
    """A second moment ``sum x x^T`` that was shrunk towards its diagonal, in the order in which columns are rounded.

    With the unit upper triangular ``U`` and the diagonal ``D`` of ``matrix = U D U^T``, a row with the errors ``e`` loses
    ``sum D_j (e U)_j ^ 2``: so column j is best rounded to its weight plus what the errors of those before it ask of it,
    ``sum_i<j e_i U_ij``, and D_j is what its distance from that costs. (LDLQ, which is GPTQ without an inverse: Chee and others,
    "QuIP", 2023, arXiv 2307.13304.)

    Attributes:
        matrix: float32 [columns, columns], symmetric, positive definite.
        follow: float32 [columns, columns], ``U^T``: row j says how column j follows the errors before it. Above the diagonal: 0.
        cost: float32 [columns], D.
        order: the column that stands at each place.
    """

    matrix: Floats
    follow: Floats
    cost: Floats
    order: Order

    @property
    def nbytes(self) -> int:
        return self.matrix.nbytes + self.follow.nbytes


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
    from scipy.linalg.lapack import spotrf

    diagonal = np.diagonal(hessian).astype(np.float64)
    if not np.isfinite(hessian).all() or not (mean := float(diagonal.mean())) > 0:
        raise FloatingPointError("the second moment is empty or not finite")
    diagonal = np.maximum(diagonal, _FLOOR * mean)
    order = column_order(diagonal, form)
    scale = np.sqrt(diagonal[order]).astype(np.float32)
    matrix = hessian[np.ix_(order, order)]
    matrix *= ((1 - shrinkage) / scale)[:, None]
    matrix /= scale
    np.fill_diagonal(matrix, 1)
    # matrix = R R^T with R upper triangular: the Cholesky factor of the matrix read backwards. LAPACK counts columns first.
    lower, failed = spotrf(matrix[::-1, ::-1].copy().T, lower=1, overwrite_a=1)
    if failed:
        raise FloatingPointError("the second moment is not positive definite")
    follow = np.ascontiguousarray(lower.T[::-1, ::-1])
    pivot = scale * np.diagonal(follow)
    follow *= scale
    follow /= pivot[:, None]
    matrix *= scale[:, None]
    matrix *= scale
    return Moment(matrix, follow, pivot * pivot, order)


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


def one_blas_thread() -> AbstractContextManager[object]:
    """BLAS with one thread: the threads are the caller's, and bytes do not depend on how many there are."""
    import scipy.linalg.lapack  # noqa: F401  # it has a BLAS of its own, which is only held back once it is there

    return threadpool_limits(1, "blas")  # type: ignore[no-any-return]


def output_error(difference: Floats, hessian: Floats) -> float:
    """``trace(D H D^T)``: the squared error of the outputs, summed over rows and the tokens in ``hessian``."""
    return float(np.einsum("rc,rc->", difference @ hessian, difference, dtype=np.float64))
