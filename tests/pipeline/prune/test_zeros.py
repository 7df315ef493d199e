"""Magnitude, Wanda and SparseGPT against the formulas written out slowly, weight by weight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import RecipeError
from pipeline.prune.zeros.methods import Sparsity, read_sparsity, thin

RNG = np.random.default_rng(11)


def wish(method: str, share: float = 0.5, pattern: str | None = None) -> Sparsity:
    found = read_sparsity(None if pattern else share, pattern, method)
    assert found is not None
    return found


def example(rows: int = 6, columns: int = 16, tokens: int = 40) -> tuple[np.ndarray, np.ndarray]:
    x = RNG.normal(size=(tokens, columns)) * RNG.uniform(0.1, 3, columns)
    return RNG.normal(size=(rows, columns)).astype(np.float32), (x.T @ x).astype(np.float32)


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=40), st.floats(0.01, 0.99))
def test_magnitude_takes_exactly_the_smallest(values: list[int], share: float) -> None:
    """Of equal ones, the first go: python's sorted keeps their order."""
    weights = np.array([values], np.float32)
    order = sorted(range(len(values)), key=lambda i: abs(values[i]))
    gone = set(order[: round(share * len(values))])
    expected = [0 if i in gone else v for i, v in enumerate(values)]
    np.testing.assert_array_equal(thin(weights, wish("magnitude", share), None), [expected])


def test_half_of_four_weights_is_the_two_smallest() -> None:
    weights = np.array([[0.8, -0.1], [0.05, -1.2]], np.float32)
    np.testing.assert_array_equal(thin(weights, wish("magnitude"), None), np.array([[0.8, 0], [0, -1.2]], np.float32))


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize(("pattern", "keep", "group"), [("2:4", 2, 4), ("1:4", 1, 4), ("4:8", 4, 8)])
def test_of_each_group_along_the_input_exactly_so_many_stay(method: str, pattern: str, keep: int, group: int) -> None:
    weights, hessian = example(rows=9, columns=32)
    found = thin(weights, wish(method, pattern=pattern), hessian)
    assert (np.count_nonzero(found.reshape(9, -1, group), axis=2) == keep).all()
    if method != "sparsegpt":
        assert ((found == weights) | (found == 0)).all()


@pytest.mark.parametrize("pattern", [None, "2:4"])
def test_wanda_compares_weights_times_the_norm_of_their_input(pattern: str | None) -> None:
    """Sun et al., equation 1: S_ij = |W_ij| * ||X_j||_2, compared within each output row."""
    weights, hessian = example()
    found = thin(weights, wish("wanda", 0.4, pattern), hessian)
    for i, row in enumerate(weights):
        scores = [abs(float(w)) * float(hessian[j, j]) ** 0.5 for j, w in enumerate(row)]
        groups = [range(len(row))] if pattern is None else [range(g, g + 4) for g in range(0, len(row), 4)]
        count = round(0.4 * len(row)) if pattern is None else 2
        gone = {j for group in groups for j in sorted(group, key=lambda j: scores[j])[:count]}
        assert {j for j in range(len(row)) if found[i, j] == 0} == gone


def slow_sparsegpt(weights: np.ndarray, hessian: np.ndarray, share: float, group: int, block: int) -> np.ndarray:
    """Frantar and Alistarh, algorithm 1, by its words: Cholesky of the inverse, columns in order, masks by block."""
    w = weights.astype(np.float64).copy()
    rows, columns = w.shape
    h = hessian.astype(np.float64) + 0.01 * np.mean(np.diag(hessian)) * np.eye(columns)
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    for begin in range(0, columns, block):
        end = min(begin + block, columns)
        gone = set()
        if not group:
            places = [(i, j) for i in range(rows) for j in range(begin, end)]
            places.sort(key=lambda p: w[p] ** 2 / upper[p[1], p[1]] ** 2)
            gone = set(places[: round(share * len(places))])
        for j in range(begin, end):
            if group and (j - begin) % group == 0:
                for i in range(rows):
                    own = sorted(range(j, j + group), key=lambda c: w[i, c] ** 2 / upper[c, c] ** 2)
                    gone |= {(i, c) for c in own[: round(share * group)]}
            for i in range(rows):
                error = w[i, j] / upper[j, j] if (i, j) in gone else 0.0
                for c in range(j, columns):
                    w[i, c] -= error * upper[j, c]
                if (i, j) in gone:
                    w[i, j] = 0
    return w


@pytest.mark.parametrize(("pattern", "group"), [(None, 0), ("2:4", 4)])
def test_sparsegpt_is_the_published_algorithm(pattern: str | None, group: int) -> None:
    weights, hessian = example(rows=3, columns=160, tokens=400)  # more than one block
    found = thin(weights, wish("sparsegpt", 0.5, pattern), hessian)
    np.testing.assert_allclose(found, slow_sparsegpt(weights, hessian, 0.5, group, 128), rtol=0, atol=1e-4)
    assert np.count_nonzero(found == 0) == 240


def test_reconstruction_beats_the_mask_alone() -> None:
    weights, _ = example(rows=20, columns=64)
    mix = RNG.normal(size=(16, 64))
    x = RNG.normal(size=(500, 16)) @ mix + 0.2 * RNG.normal(size=(500, 64))
    hessian = (x.T @ x).astype(np.float32)

    def lost(method: str) -> float:
        d = (weights - thin(weights, wish(method), hessian)).astype(np.float64)
        return float(np.einsum("rc,rc->", d @ hessian, d))

    assert lost("sparsegpt") < 0.5 * lost("wanda")


def test_an_input_that_is_always_zero_needs_no_weights() -> None:
    weights, hessian = example(columns=8)
    hessian[:, 3] = hessian[3, :] = 0
    found = thin(weights, wish("sparsegpt", 0.25), hessian)
    assert np.isfinite(found).all()
    assert (found[:, 3] == 0).all()


@pytest.mark.parametrize(
    ("share", "pattern", "method", "says"),
    [
        (1.5, None, None, "out of range"), (0.0, None, None, "out of range"), (0.5, "2-4", None, "2:4"),
        (0.5, "4:4", None, "2:4"), (0.4, "2:4", None, "leave one out"), (0.5, None, "random", "magnitude"),
        (None, None, "wanda", "--sparsity"),
        (float("nan"), None, None, "out of range"),
    ],
)  # fmt: skip
def test_a_wish_that_cannot_be(share: float | None, pattern: str | None, method: str | None, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        read_sparsity(share, pattern, method)
