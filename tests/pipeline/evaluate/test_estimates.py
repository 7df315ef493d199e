"""Figures and their errors: windows are the independent unit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.evaluate.estimates import estimate_figures
from pipeline.evaluate.figures import Estimate, Figures
from pipeline.evaluate.lines import told
from pipeline.evaluate.side_by_side import TokenScores

COMPARED = ("kld", "kld_median", "kld_p99", "top1", "rms_dp", "nll_over_reference")


def windows(seed: int, counts: list[int], spread: float = 0.1) -> list[TokenScores]:
    """Scores whose level differs from window to window."""
    rng, levels = np.random.default_rng(seed), np.random.default_rng(99)
    found = []
    for n in counts:
        level = levels.uniform(1, 3)
        kld = rng.gamma(2, 0.05 * level, n)
        nll = rng.gamma(3, level, n)
        found.append(
            TokenScores(nll, kld, (rng.random(n) < 0.9).astype(float), rng.normal(0, spread, n), rng.normal(0.1, 0.1, n))
        )
    return found


def test_a_mean_is_over_tokens_and_its_error_over_windows() -> None:
    scores = windows(1, [50] * 20)
    found = estimate_figures(scores, [200] * 20)
    means = np.array([w.nll.mean() for w in scores])
    assert found.nll.value == pytest.approx(means.mean())
    assert found.nll.error == pytest.approx(means.std(ddof=1) / math.sqrt(20))
    assert found.perplexity == Estimate(
        pytest.approx(math.exp(means.mean())), pytest.approx(found.perplexity.value * found.nll.error)
    )
    assert found.bits_per_byte.value == pytest.approx(means.mean() * 50 / 200 / math.log(2))
    squares = np.concatenate([w.dp for w in scores if w.dp is not None]) ** 2
    assert found.rms_dp is not None
    assert found.rms_dp.value == pytest.approx(math.sqrt(squares.mean()))
    assert (found.windows, found.tokens) == (20, 1000)


def test_the_errors_are_those_that_other_texts_would_show() -> None:
    """Each figure of many evaluations, on windows of uneven lengths, scatters by about the error that each one gives."""
    rng = np.random.default_rng(5)
    found: list[Figures] = []
    for _ in range(200):
        scores = []
        for n in rng.integers(20, 60, 30):
            level = rng.uniform(0.5, 2)
            kld, nll = rng.gamma(2, 0.1 * level, n), rng.gamma(3, level, n)
            same, dp, over = (rng.random(n) < 0.8 + 0.1 * level / 2).astype(float), rng.normal(0, 0.1 * level, n), kld * level
            scores.append(TokenScores(nll, kld, same, dp, over))
        found.append(estimate_figures(scores, [4 * len(s.nll) for s in scores]))
    for name in ("nll", "perplexity", "bits_per_byte", *COMPARED):
        estimates = [getattr(f, name) for f in found]
        scatter = np.std([e.value for e in estimates])
        assert np.mean([e.error for e in estimates]) == pytest.approx(scatter, rel=0.25), name


def test_an_error_over_tokens_is_llama_perplexitys_and_only_where_it_is_asked_for() -> None:
    scores = windows(1, [50] * 20)
    assert estimate_figures(scores, [200] * 20).nll.token_error is None
    found = estimate_figures(scores, [200] * 20, by_token=True)
    every = np.concatenate([w.nll for w in scores])
    assert found.nll.token_error == pytest.approx(math.sqrt(((every**2).mean() - every.mean() ** 2) / 999))
    assert found.top1 is not None
    assert found.top1.token_error == pytest.approx(math.sqrt(found.top1.value * (1 - found.top1.value) / 999))


def test_pairing_sees_a_small_difference_among_windows_that_differ_much() -> None:
    first = windows(1, [50] * 20)
    other = [TokenScores(w.nll + 0.01, w.kld + 0.001, w.same_top, w.dp, w.nll_over) for w in first if w.kld is not None]
    found = estimate_figures(other, [200] * 20, first)
    assert found.nll_over_first == Estimate(pytest.approx(0.01), pytest.approx(0, abs=1e-12))
    assert found.kld_over_first == Estimate(pytest.approx(0.001), pytest.approx(0, abs=1e-12))
    assert found.nll.error is not None
    assert found.nll.error > 0.1


def test_without_a_reference_there_is_likelihood_only_and_one_window_has_no_error() -> None:
    found = estimate_figures([TokenScores(np.array([1.0, 2.0, 3.0]))], [9])
    assert found.nll == Estimate(2.0)
    assert found.bits_per_byte.value == pytest.approx(6 / math.log(2) / 9)
    assert all(getattr(found, name) is None for name in COMPARED)


def test_a_model_that_is_sure_of_the_wrong_still_gives_numbers() -> None:
    found = estimate_figures([TokenScores(np.full(4, 1e6)), TokenScores(np.full(4, 2e6))], [4, 4])
    assert math.isfinite(found.perplexity.value)
    assert found.perplexity.error is not None
    assert math.isfinite(found.perplexity.error)


def test_a_figure_is_told_as_far_as_its_error_lets_it_be_known() -> None:
    assert told(Estimate(0.48512, 0.02731)) == "0.485 ± 0.027"
    assert told(Estimate(31.234, 2.03)) == "31.2 ± 2.0"
    assert told(Estimate(12345.6, 230)) == "12,346 ± 230"
    assert told(Estimate(0.65, 0.0061), 100, " %") == "65.00 ± 0.61 %"
    assert told(Estimate(0.012346)) == "0.01235"
    assert told(Estimate(0.0, 0.0)) == "0.0000 ± 0.0000"
    assert told(Estimate(65219811.9, 24869750.0)) == "6.52e+07 ± 2.5e+07"
    assert told(Estimate(0.5, 0.1), sign=True) == "+0.50 ± 0.10"
