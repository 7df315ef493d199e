"""Weights that are set to zero one by one: by magnitude, by Wanda and by SparseGPT.

Sources: Han et al. 2015 (arXiv 1506.02626), Sun et al. 2023 (Wanda, arXiv 2306.11695, equation 1), Frantar and Alistarh 2023
(SparseGPT, arXiv 2301.00774, algorithm 1). Of n weights exactly round(share * n) go (Python's round: halves to even), those of
the smallest scores, and of equal ones those that stand first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.errors import RecipeError
from pipeline.format.ggml import Floats

METHODS = ("magnitude", "wanda", "sparsegpt")
Mask = npt.NDArray[np.bool_]
_BLOCK = 128  # columns whose mask SparseGPT chooses at once
_DAMP = 0.01  # share of the mean diagonal, as SparseGPT has it


@dataclass(frozen=True, slots=True)
class Sparsity:
    """What is to be zero.

    Attributes:
        share: of the weights of each tensor, above 0 and below 1.
        keep, group: with a pattern, that many of each group of neighbours along the input stay; (0, 0) without.
        method: one of ``METHODS``.
    """

    share: float
    keep: int
    group: int
    method: str

    @property
    def words(self) -> str:
        return f"{self.method}, {self.keep}:{self.group}" if self.group else f"{self.method}, {self.share:.0%} zeros"


def read_sparsity(share: float | None, pattern: str | None, method: str | None) -> Sparsity | None:
    """What the options say; None without any. Raises RecipeError."""
    if share is None and pattern is None:
        if method is not None:
            raise RecipeError("--method is for --sparsity; name how much with it, as --sparsity 0.5")
        return None
    method = method or "sparsegpt"
    if method not in METHODS:
        raise RecipeError(f"there is no method {method!r}; take one of {', '.join(METHODS)}")
    keep = group = 0
    if pattern is not None:
        parts = pattern.split(":")
        if len(parts) != 2 or not all(p.isascii() and p.isdigit() for p in parts) or not 0 < int(parts[0]) < int(parts[1]) <= 64:
            raise RecipeError(f"--pattern {pattern!r} is no pattern: 2:4 keeps two of each four neighbours")
        keep, group = map(int, parts)
        if share is not None and abs(share - (1 - keep / group)) > 1e-6:
            raise RecipeError(
                f"--pattern {pattern} sets {1 - keep / group:.0%} to zero, --sparsity says {share:.0%}: leave one out"
            )
        share = 1 - keep / group
    assert share is not None
    if not 0 < share < 1:
        raise RecipeError(f"--sparsity {share:g} is out of range: it is the share of zeros, as 0.5")
    return Sparsity(share, keep, group, method)


def thin(weights: Floats, wish: Sparsity, hessian: Floats | None) -> Floats:
    """Weights with zeros, float32 [rows, columns].

    Args:
        hessian: the second moment of the inputs (a sum over tokens), [columns, columns]; magnitude needs none.
    """
    if wish.method == "sparsegpt":
        assert hessian is not None
        return sparsegpt(weights, wish, hessian)
    if wish.method == "wanda":
        assert hessian is not None
        scores = np.abs(weights) * np.sqrt(np.maximum(np.diagonal(hessian), 0))  # |w| times the norm of its input
        mask = by_group(scores, wish) if wish.group else by_row(scores, wish.share)
    else:
        scores = np.abs(weights)
        mask = by_group(scores, wish) if wish.group else smallest(scores, wish.share)
    return np.where(mask, np.float32(0), weights)


def smallest(scores: npt.NDArray[Any], share: float) -> Mask:
    """The mask of the round(share * n) smallest of all, the first of equal ones."""
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(scores, axis=None, kind="stable")[: round(share * scores.size)]] = True
    return mask.reshape(scores.shape)


def by_row(scores: npt.NDArray[Any], share: float) -> Mask:
    """The same in each row by itself."""
    mask = np.zeros(scores.shape, bool)
    places = np.argsort(scores, axis=1, kind="stable")[:, : round(share * scores.shape[1])]
    np.put_along_axis(mask, places, True, axis=1)
    return mask


def by_group(scores: npt.NDArray[Any], wish: Sparsity) -> Mask:
    """In each group of neighbours along the input, all but the ``keep`` largest."""
    rows, columns = scores.shape
    grouped = scores.reshape(rows * columns // wish.group, wish.group)
    mask = np.zeros(grouped.shape, bool)
    np.put_along_axis(mask, np.argsort(grouped, axis=1, kind="stable")[:, : wish.group - wish.keep], True, axis=1)
    return mask.reshape(rows, columns)


def sparsegpt(weights: Floats, wish: Sparsity, hessian: Floats) -> Floats:
    """Columns from left to right: what a zero costs is given to the columns behind it, by the Cholesky factor of H^-1.

    The mask of a block of columns is chosen when its turn comes, by w^2 / [chol(H^-1)]_jj^2: what is left of the error then.
    """
    w, factor = weights.astype(np.float64), _inverse_factor(hessian, weights)
    diagonal = np.diagonal(factor)
    dead = np.diagonal(hessian) <= 0
    w[:, dead] = 0
    block = _BLOCK if not wish.group else max(wish.group, _BLOCK // wish.group * wish.group)
    for begin in range(0, w.shape[1], block):
        end = min(begin + block, w.shape[1])
        part, errors = w[:, begin:end], np.zeros((len(w), end - begin))
        mask = np.zeros(part.shape, bool) if wish.group else smallest(part**2 / diagonal[begin:end] ** 2, wish.share)
        for j in range(end - begin):
            at = begin + j
            if wish.group and j % wish.group == 0:
                group = np.s_[:, j : j + wish.group]
                mask[group] = by_group(part[group] ** 2 / diagonal[at : at + wish.group] ** 2, wish)
            errors[:, j] = np.where(mask[:, j], part[:, j], 0) / diagonal[at]
            part[:, j:] -= np.outer(errors[:, j], factor[at, at:end])
            part[mask[:, j], j] = 0
        w[:, end:] -= errors @ factor[begin:end, end:]
    return w.astype(np.float32)


def _inverse_factor(hessian: Floats, weights: Floats) -> npt.NDArray[np.float64]:
    """Upper triangular U with U^T U = H^-1, of the damped H."""
    from scipy.linalg import cholesky
    from scipy.linalg.lapack import dpotri

    h = hessian.astype(np.float64)
    diagonal = np.diagonal(h).copy()
    h[np.diag_indices_from(h)] += np.where(diagonal <= 0, 1.0, 0.0) + _DAMP * float(diagonal.mean())
    inverse, failed = dpotri(cholesky(h, lower=True, overwrite_a=True), lower=1, overwrite_c=1)
    if failed:
        raise FloatingPointError("the second moment cannot be inverted")
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    found: npt.NDArray[np.float64] = cholesky(inverse, lower=False, overwrite_a=True)
    return found
