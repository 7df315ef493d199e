"""The weights that do with the rounded model's inputs what the original's do with its own.

Minimising ``||W X - W' X^||`` over W' gives ``W' = W X X^^T (X^ X^^T)^-1 = W + W (X - X^) X^^T (X^ X^^T)^-1``. From few tokens
that learns noise; so the correction is damped, and shortened, as the other half of the text says.
Source: Qronos (Zhang et al. 2025, arXiv 2505.11695) and GPTAQ (Li et al. 2025, arXiv 2504.02692) round for such inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.format.ggml import Floats
from pipeline.refine.sums import SumsOfBoth

_DAMPINGS = (0.03, 0.2, 1.0)  # of the correlations' diagonal
_LENGTHS = (0.5, 1.0)
_FLOOR = 1e-6  # of the mean diagonal


class Corrections:
    """The corrections of all weights that share an input.

    Args:
        folds: its sums over the two halves of the text.
    """

    def __init__(self, folds: Sequence[SumsOfBoth]) -> None:
        self.folds = folds
        self._whole = folds[0] + folds[1]
        self._factors: dict[tuple[int | None, float], tuple[Floats, Floats]] = {}

    def of(self, weights: Floats) -> Floats | None:
        """One weight for the rounded model's inputs, [rows, columns], or None where a half of the text does not confirm it."""
        best = (0.0, 1.0, 0.0)
        for damping in _DAMPINGS:
            change = self._solved(weights, 0, damping)
            pull = float(np.einsum("rc,rc->", weights @ self.folds[1].cross, change, dtype=np.float64))
            curve = float(np.einsum("rc,rc->", change @ self.folds[1].hessian, change, dtype=np.float64))
            best = min(best, *((s * s * curve - 2 * s * pull, damping, s) for s in _LENGTHS))
        _, damping, length = best
        return weights + np.float32(length) * self._solved(weights, None, damping) if length else None

    def _solved(self, weights: Floats, fold: int | None, damping: float) -> Floats:
        """``W cross (hessian + damping)^-1`` of a fold, or of both."""
        from scipy.linalg import cho_solve

        sums = self._whole if fold is None else self.folds[fold]
        factor, scale = self._factor(sums, fold, damping)
        wanted = np.ascontiguousarray((weights @ sums.cross / scale).T)
        change: Floats = cho_solve((factor, True), wanted, check_finite=False).T / scale
        return change

    def _factor(self, sums: SumsOfBoth, fold: int | None, damping: float) -> tuple[Floats, Floats]:
        if (fold, damping) not in self._factors:
            diagonal = np.diagonal(sums.hessian)
            scale = np.sqrt(np.maximum(diagonal, _FLOOR * diagonal.mean()))
            damped = sums.hessian / scale[:, None] / scale
            damped[np.diag_indices(len(scale))] += np.float32(damping)
            self._factors[fold, damping] = np.linalg.cholesky(damped), scale
        return self._factors[fold, damping]
