"""Scores of tokens become figures with standard errors.

The independent unit is the window: tokens of one text follow from one another, so an error over tokens is too small. A mean over
tokens is a ratio of two sums over windows (``ratio``). A percentile's is Woodruff's (Journal of the American Statistical
Association 47, 1952): the error of the share of tokens below it, read off at both sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.evaluate.figures import Estimate, Figures
from pipeline.evaluate.ratio import ratio
from pipeline.evaluate.side_by_side import TokenScores
from pipeline.forward.measures import Doubles

_MOST = 300.0  # exp of it, times its error, is still a float


def estimate_figures(
    windows: Sequence[TokenScores],
    text_bytes: Sequence[int],
    first: Sequence[TokenScores] | None = None,
    *,
    by_token: bool = False,
) -> Figures:
    """A model's figures.

    Args:
        windows: its scores, at least one window.
        text_bytes: bytes of the text of each window's scored tokens.
        first: another model's on the same windows, to compare with.
        by_token: add the errors that llama-perplexity prints.
    """
    whole, other = _joined(windows), None if first is None else _joined(first)
    clusters = _Clusters([len(w.nll) for w in windows], by_token)
    nll = clusters.mean(whole.nll)
    bits = ratio(clusters.sums(whole.nll) / math.log(2), np.array(text_bytes, np.float64))
    figures = Figures(len(windows), len(whole.nll), nll, _perplexity(nll), Estimate(*bits))
    if other is not None:
        figures = replace(figures, nll_over_first=clusters.mean(whole.nll - other.nll))
        if whole.kld is not None and other.kld is not None:
            figures = replace(figures, kld_over_first=clusters.mean(whole.kld - other.kld))
    if whole.kld is None or whole.same_top is None or whole.dp is None or whole.nll_over is None:
        return figures
    return replace(
        figures,
        kld=clusters.mean(whole.kld),
        kld_median=clusters.percentile(whole.kld, 0.5),
        kld_p99=clusters.percentile(whole.kld, 0.99),
        top1=clusters.mean(whole.same_top),
        rms_dp=_root(clusters.mean(whole.dp**2)),
        nll_over_reference=clusters.mean(whole.nll_over),
    )


def _joined(windows: Sequence[TokenScores]) -> TokenScores:
    """All windows as one."""
    names = [name for name in TokenScores.__slots__ if getattr(windows[0], name) is not None]
    return TokenScores(**{name: np.concatenate([getattr(w, name) for w in windows]) for name in names})


class _Clusters:
    """Tokens by windows: ``counts`` tokens in each, one after the other."""

    def __init__(self, counts: Sequence[int], by_token: bool) -> None:
        self.counts = np.array(counts, np.float64)
        self._starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        self._by_token = by_token

    def sums(self, values: Doubles) -> Doubles:
        """The sum of each window."""
        found: Doubles = np.add.reduceat(values, self._starts)
        return found

    def mean(self, values: Doubles) -> Estimate:
        return Estimate(*ratio(self.sums(values), self.counts), _token_error(values) if self._by_token else None)

    def percentile(self, values: Doubles, share: float) -> Estimate:
        found = float(np.quantile(values, share))
        _, error = ratio(self.sums((values <= found).astype(np.float64)), self.counts)
        if error is None:
            return Estimate(found)
        low, high = np.quantile(values, [max(0.0, share - error), min(1.0, share + error)])
        return Estimate(found, float(high - low) / 2)


def _token_error(values: Doubles) -> float | None:
    """As tools/perplexity/perplexity.cpp has it."""
    return float(values.std()) / math.sqrt(len(values) - 1) if len(values) > 10 else None


def _perplexity(nll: Estimate) -> Estimate:
    value = math.exp(min(nll.value, _MOST))
    return _scaled(value, value, nll)


def _root(square: Estimate) -> Estimate:
    value = math.sqrt(square.value)
    return _scaled(value, 0.5 / value if value else 0.0, square)


def _scaled(value: float, slope: float, of: Estimate) -> Estimate:
    """A function's value, its errors those of its argument times its slope there."""
    error, token_error = (None if e is None else slope * e for e in (of.error, of.token_error))
    return Estimate(value, error, token_error)
