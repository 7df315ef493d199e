"""The measures of tokens are those of the textbook, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.forward import measures
from pipeline.forward.measures import Doubles, differences, divergences, likelihoods


def log_softmax(logits: np.ndarray) -> Doubles:
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    found: Doubles = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    return found


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    reference = rng.normal(5, 4, (37, 3001)).astype(np.float32)
    candidate = reference + rng.normal(0, 0.3, reference.shape).astype(np.float32)
    return reference, candidate, rng.integers(0, 3001, 37)


def test_they_agree_with_the_definitions(
    rows: tuple[np.ndarray, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "_PART", 10_000)  # several parts
    reference, candidate, targets = rows
    p, q, each = log_softmax(reference), log_softmax(candidate), np.arange(37)
    found = differences(reference, candidate, targets)
    np.testing.assert_allclose(found.kld, (np.exp(p) * (p - q)).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found.reference.nll, -p[each, targets], rtol=1e-6)
    np.testing.assert_allclose(found.candidate.nll, -q[each, targets], rtol=1e-6)
    np.testing.assert_allclose(found.dp, np.exp(q[each, targets]) - np.exp(p[each, targets]), atol=1e-7)
    np.testing.assert_array_equal(found.same_top, p.argmax(axis=1) == q.argmax(axis=1))
    np.testing.assert_array_equal(likelihoods(candidate, targets).nll, found.candidate.nll)
    np.testing.assert_array_equal(divergences(reference, candidate), found.kld)


def test_a_small_divergence_is_not_lost_among_large_logits(rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    reference = rows[0] + np.float32(300)
    candidate = reference + np.random.default_rng(4).normal(0, 1e-3, reference.shape).astype(np.float32)
    p, q = log_softmax(reference), log_softmax(candidate)
    found = differences(reference, candidate, rows[2])
    np.testing.assert_allclose(found.kld, (np.exp(p) * (p - q)).sum(axis=1), atol=1e-7)
    assert 0 < found.kld.max() < 2e-6


def test_a_model_is_no_distance_from_itself(rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    found = differences(rows[0], rows[0].copy(), rows[2])
    assert not found.kld.any()
    assert not found.dp.any()
    assert found.same_top.all()


def test_a_shift_of_all_logits_changes_nothing(rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    found = differences(rows[0], rows[0] + np.float32(16), rows[2])
    assert found.kld.max() < 1e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_nan_in_its_row_alone(rows: tuple[np.ndarray, np.ndarray, np.ndarray], bad: float) -> None:
    broken = rows[1].copy()
    broken[5, 7] = bad
    found = differences(rows[0], broken, rows[2])
    assert np.flatnonzero(~np.isfinite(found.kld)).tolist() == [5]
    assert not np.isfinite(likelihoods(broken, rows[2]).nll[5])


def test_other_shapes_are_refused(rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="shape"):
        differences(rows[0], rows[1][:, :-1], rows[2])
    with pytest.raises(ValueError, match="shape"):
        divergences(rows[0], rows[1][:-1])
