"""The repair against least squares done by somebody else, and that it is judged on what it has not seen."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.prune.repair import DAMPS, fit, relative_error, repair

RNG = np.random.default_rng(3)


def inputs(tokens: int, columns: int, seed: int = 0) -> np.ndarray:
    """Tokens whose columns follow from fewer causes, so that some say what others say."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(columns // 2, columns))
    return (rng.normal(size=(tokens, columns // 2)) @ mix + 0.3 * rng.normal(size=(tokens, columns))).astype(np.float32)


def moment(x: np.ndarray) -> np.ndarray:
    return (x.T @ x).astype(np.float32)


def test_without_damping_it_is_the_least_squares_solution() -> None:
    x, weights = inputs(400, 24), RNG.normal(size=(7, 24)).astype(np.float32)
    kept = np.array([0, 2, 3, 5, 8, 9, 11, 14, 15, 17, 18, 20, 22])
    wanted, *_ = np.linalg.lstsq(x[:, kept].astype(np.float64), x.astype(np.float64) @ weights.T, rcond=None)
    np.testing.assert_allclose(fit(weights, kept, moment(x), 0.0), wanted.T, rtol=0, atol=2e-3)


@pytest.mark.parametrize("damp", DAMPS)
def test_damping_holds_the_weights_to_what_they_were(damp: float) -> None:
    """Ridge regression as more rows of an ordinary one: sqrt(d) I must give sqrt(d) W_K."""
    x, weights = inputs(50, 16).astype(np.float64), RNG.normal(size=(5, 16)).astype(np.float32)
    kept = np.array([1, 2, 5, 6, 8, 11, 12, 15])
    d = damp * np.trace(x[:, kept].T @ x[:, kept]) / len(kept)
    rows = np.concatenate([x[:, kept], np.sqrt(d) * np.eye(len(kept))])
    targets = np.concatenate([x @ weights.T, np.sqrt(d) * weights[:, kept].T])
    wanted, *_ = np.linalg.lstsq(rows, targets, rcond=None)
    np.testing.assert_allclose(fit(weights, kept, moment(x), damp), wanted.T, rtol=0, atol=1e-4)


def test_the_error_is_that_of_the_outputs() -> None:
    x, weights = inputs(30, 10), RNG.normal(size=(4, 10)).astype(np.float32)
    kept = np.array([0, 1, 4, 7, 9])
    new = RNG.normal(size=(4, 5)).astype(np.float32)
    lost = x @ weights.T - x[:, kept] @ new.T
    assert relative_error(weights, new, kept, moment(x)) == pytest.approx(
        (lost**2).sum() / ((x @ weights.T) ** 2).sum(), rel=1e-4
    )
    assert relative_error(weights, weights, None, moment(x)) == 0


def test_the_repair_proves_itself_on_the_other_half() -> None:
    weights, kept = RNG.normal(size=(300, 24)).astype(np.float32), np.arange(0, 24, 2)
    folds = [(moment(inputs(600, 24, seed)), 600) for seed in (1, 2)]
    found = repair(weights, kept, folds)
    assert found.damp in DAMPS
    assert found.after < 0.6 * found.before
    unseen = moment(inputs(600, 24, 5))
    assert relative_error(weights, found.weights, kept, unseen) == pytest.approx(found.after, rel=0.3)


def test_what_does_not_help_is_left_out() -> None:
    """Columns that have nothing to do with each other, and too few tokens to know that."""
    weights, kept = RNG.normal(size=(9, 40)).astype(np.float32), np.arange(0, 38)
    folds = [(moment(np.random.default_rng(seed).normal(size=(20, 40))), 20) for seed in (1, 2)]
    found = repair(weights, kept, folds)
    assert found.after <= found.before
    plain = repair(weights, kept, folds, wanted=False)
    assert plain.damp is None
    np.testing.assert_array_equal(plain.weights, weights[:, kept])
    silent = np.zeros((40, 40), np.float32)
    np.testing.assert_array_equal(repair(weights, kept, [(silent, 3), (silent, 3)]).weights, weights[:, kept])
