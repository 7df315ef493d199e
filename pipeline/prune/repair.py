"""Closed-form repair: what the columns that go gave to the outputs, the columns that stay give as well as they can.

With inputs x of second moment H, weights W, the columns K that stay and D that go, the repaired weights minimize
``E |W x - W' x_K|^2 + d |W' - W_K|^2``, which is ``W' = W_K + W_D H_DK (H_KK + d I)^-1``; for d = 0 that is the least-squares
solution ``W H_:K H_KK^-1``. Few tokens say too much about pairs of columns, so d is chosen on text that the fit has not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.format.ggml import Floats

Index = npt.NDArray[np.int64]
DAMPS = (1e-3, 1e-2, 1e-1, 0.3, 1.0, 3.0)  # shares of the mean diagonal of H_KK
_SAMPLE = 128  # rows that choose among them
_FLOOR = 1e-7  # share of the mean diagonal that is added always: the arithmetic is float32's


@dataclass(frozen=True, slots=True)
class Repaired:
    """Weights whose input has lost columns.

    Attributes:
        weights: float32 [rows, columns that stay].
        damp: the share of the mean diagonal that was added to H_KK; None where the weights that stay were left as they were.
        before, after: the squared error of the outputs over their squared length, without and with the repair, in a sample of
            rows; a mean over two folds of text, each judged with what the other one taught.
    """

    weights: Floats
    damp: float | None
    before: float
    after: float


def fit(weights: Floats, kept: Index, hessian: Floats, damp: float) -> Floats:
    """The repaired weights, float32 [rows, columns that stay].

    Args:
        weights: [rows, columns].
        kept: the columns that stay, ascending.
        hessian: the second moment of the inputs, [columns, columns]; its scale does not matter.
        damp: share of the mean diagonal of what stays of it.
    """
    from scipy.linalg import cho_factor, cho_solve

    gone = _others(kept, weights.shape[1])
    square = hessian[np.ix_(kept, kept)].astype(np.float64)
    mean = float(np.trace(square)) / len(kept)
    if not mean > 0:  # inputs that are zero on all of the text teach nothing
        return np.ascontiguousarray(weights[:, kept])
    square[np.diag_indices_from(square)] += (damp + _FLOOR) * mean
    lost = weights[:, gone].astype(np.float64) @ hessian[np.ix_(gone, kept)].astype(np.float64)
    found = cho_solve(cho_factor(square, lower=True, overwrite_a=True, check_finite=False), lost.T, check_finite=False).T
    return np.asarray(weights[:, kept] + found, np.float32)


def repair(weights: Floats, kept: Index, folds: Sequence[tuple[Floats, int]], *, wanted: bool = True) -> Repaired:
    """Take columns away and let the others do their work, if that proves itself on unseen text.

    Args:
        folds: the second moments of the two halves of the text, with their tokens.
        wanted: False only says what it costs without.
    """
    pairs = [(folds[0][0], folds[1][0]), (folds[1][0], folds[0][0])]
    sample = np.ascontiguousarray(weights[:: max(1, len(weights) // _SAMPLE)])
    plain = np.ascontiguousarray(weights[:, kept])
    wholes = [_energy(sample, judge) or 1.0 for _, judge in pairs]
    before = float(np.mean([_lost(sample, sample[:, kept], kept, pair[1]) / e for pair, e in zip(pairs, wholes, strict=True)]))
    if not wanted:
        return Repaired(plain, None, before, before)

    def unseen(damp: float) -> float:
        each = [_lost(sample, fit(sample, kept, learnt, damp), kept, judge) for learnt, judge in pairs]
        return float(np.mean(np.divide(each, wholes)))

    errors = {damp: unseen(damp) for damp in DAMPS}
    damp = min(errors, key=lambda d: errors[d])
    if not errors[damp] < before:
        return Repaired(plain, None, before, before)
    return Repaired(fit(weights, kept, folds[0][0] + folds[1][0], damp), damp, before, errors[damp])


def relative_error(weights: Floats, changed: Floats, kept: Index | None, hessian: Floats) -> float:
    """``trace(D H D^T) / trace(W H W^T)``, the share of the outputs that is lost; D holds the whole columns that went.

    0 where the outputs are zero themselves.
    """
    return _lost(weights, changed, kept, hessian) / (_energy(weights, hessian) or 1.0)


def _lost(weights: Floats, changed: Floats, kept: Index | None, hessian: Floats) -> float:
    difference = weights.astype(np.float32, copy=True)
    if kept is None:
        difference -= changed
    else:
        difference[:, kept] -= changed
    return _energy(difference, hessian)


def _energy(weights: Floats, hessian: Floats) -> float:
    return float(np.einsum("rc,rc->", weights @ hessian, weights, dtype=np.float64))


def _others(kept: Index, columns: int) -> Index:
    rest = np.ones(columns, bool)
    rest[kept] = False
    return np.flatnonzero(rest)
