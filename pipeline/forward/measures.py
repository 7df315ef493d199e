"""What two models say of the same tokens, token by token, in numpy.

The figures are those of llama.cpp's tools/perplexity: natural logarithms, KL(reference || candidate), the difference of the
probabilities of the right token. Logits are taken as they are; llama-perplexity keeps the reference's in 16 bits over a range
of 16, and leaves out what lies below.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.format.ggml import Floats

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_PART = 1 << 17  # logits of one model that are worked on at once: the copies stay in the cache of a core


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """One model on some tokens; every field is float64 or int64 [n].

    Attributes:
        nll: negative log-likelihood of the right token, in nats.
        top: the likeliest token.
    """

    nll: Doubles
    top: Ints


@dataclass(frozen=True, slots=True)
class Differences:
    """A candidate beside its reference on the same tokens; every field [n].

    Attributes:
        candidate, reference: each by itself.
        kld: KL(reference || candidate) of the distribution of the next token, in nats; never below 0.
    """

    candidate: Likelihoods
    reference: Likelihoods
    kld: Doubles

    @property
    def same_top(self) -> npt.NDArray[np.bool_]:
        same: npt.NDArray[np.bool_] = self.candidate.top == self.reference.top
        return same

    @property
    def dp(self) -> Doubles:
        """Probability of the right token: the candidate's minus the reference's."""
        return np.exp(-self.candidate.nll) - np.exp(-self.reference.nll)


def likelihoods(logits: Floats, targets: Ints) -> Likelihoods:
    """Score the right tokens.

    Args:
        logits: float32 [n, n_vocab].
        targets: int64 [n], the right token of each row.

    Returns:
        ``nll`` is NaN or infinite in rows whose logits are.
    """
    nll, top = np.empty(len(logits)), np.empty(len(logits), np.int64)
    for rows in _parts(logits):
        one = _Softmax(logits[rows])
        nll[rows], top[rows] = one.nll(targets[rows]), one.top
    return Likelihoods(nll, top)


def differences(reference: Floats, candidate: Floats, targets: Ints) -> Differences:
    """Compare two models on the same rows.

    Args:
        reference, candidate: float32 logits [n, n_vocab].
        targets: int64 [n], the right token of each row.

    Returns:
        ``kld`` is NaN in rows where a logit is NaN or infinite.

    Raises:
        ValueError: the shapes differ.
    """
    n = _same_shape(reference, candidate)
    nll, top = np.empty((2, n)), np.empty((2, n), np.int64)
    kld = np.empty(n)
    for rows in _parts(reference):
        p, q = _Softmax(reference[rows]), _Softmax(candidate[rows])
        for i, one in enumerate((p, q)):
            nll[i, rows], top[i, rows] = one.nll(targets[rows]), one.top
        kld[rows] = _divergence(p, q)
    return Differences(Likelihoods(nll[1], top[1]), Likelihoods(nll[0], top[0]), kld)


def divergences(reference: Floats, candidate: Floats) -> Doubles:
    """KL(reference || candidate) alone, as ``differences`` has it: float64 [n]. Raises ValueError if the shapes differ."""
    kld = np.empty(_same_shape(reference, candidate))
    for rows in _parts(reference):
        kld[rows] = _divergence(_Softmax(reference[rows]), _Softmax(candidate[rows]))
    return kld


def standard_error(values: Doubles) -> float:
    """Of the mean of two values or more that do not depend on each other, such as those of windows."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _same_shape(reference: Floats, candidate: Floats) -> int:
    """The number of rows."""
    if reference.shape != candidate.shape:
        raise ValueError(f"logits of shape {reference.shape} beside {candidate.shape}")
    return len(reference)


def _parts(logits: Floats) -> list[slice]:
    step = max(1, _PART // max(1, logits.shape[1]))
    return [slice(at, at + step) for at in range(0, len(logits), step)]


class _Softmax:
    """The softmax of some rows, not divided: ``raised`` is exp(logit - largest), ``total`` its sum in float64."""

    def __init__(self, logits: Floats) -> None:
        self.logits = logits
        self.top = np.argmax(logits, axis=1)
        self.rows = np.arange(len(logits))
        self.largest = logits[self.rows, self.top]
        with np.errstate(invalid="ignore"):  # infinity minus infinity; the caller is told by NaN
            self.raised = np.exp(logits - self.largest[:, None])
        self.total = self.raised.sum(axis=1, dtype=np.float64)

    def nll(self, targets: Ints) -> Doubles:
        chosen = self.logits[self.rows, targets].astype(np.float64)
        with np.errstate(invalid="ignore"):
            found: Doubles = np.log(self.total) - (chosen - self.largest)
        return found


def _divergence(p: _Softmax, q: _Softmax) -> Doubles:
    """sum p (log p - log q). Logits are subtracted before anything large is added, so that small divergences stay exact."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = p.logits - q.logits
        apart -= (p.largest - q.largest)[:, None]
        apart *= p.raised
        found: Doubles = apart.sum(axis=1, dtype=np.float64) / p.total - (np.log(p.total) - np.log(q.total))
        np.maximum(found, 0.0, out=found)  # the last bit of a sum may fall below
    return found
