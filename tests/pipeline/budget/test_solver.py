"""The solver finds the best choice there is, never spends more than there is, and loses less the more there is to spend."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import RecipeError
from pipeline.budget.solver import Option, allocate, limits
from tests.fixtures.generated import runs

_options = st.lists(st.tuples(st.integers(1, 40), st.floats(0, 10, allow_subnormal=False)), min_size=1, max_size=4)
_tensors = st.lists(_options, min_size=1, max_size=5)


def named(tensors: list[list[tuple[int, float]]], unit: int = 32) -> dict[str, list[Option]]:
    return {f"t{i}": [Option(f"T{k}", unit * n, loss) for k, (n, loss) in enumerate(some)] for i, some in enumerate(tensors)}


@settings(max_examples=runs(120))
@given(_tensors, st.floats(0, 1))
def test_no_other_choice_within_the_budget_loses_less(tensors: list[list[tuple[int, float]]], share: float) -> None:
    options = named(tensors)
    least, most = limits(options)
    budget = int(least + share * (most - least))
    best = min(sum(o.loss for o in chosen) for chosen in product(*options.values()) if sum(o.nbytes for o in chosen) <= budget)
    found = allocate(options, budget)
    assert found.nbytes <= budget
    assert found.loss == pytest.approx(best, rel=1e-5, abs=1e-6)
    assert found.bound <= best + 1e-6
    assert found.nbytes == sum(next(o.nbytes for o in options[n] if o.kind == k) for n, k in found.kinds.items())


@settings(max_examples=runs(60))
@given(_tensors)
def test_more_to_spend_never_loses_more(tensors: list[list[tuple[int, float]]]) -> None:
    options = named(tensors)
    least, most = limits(options)
    losses = [allocate(options, budget).loss for budget in range(least, most + 1, max(1, (most - least) // 4))]
    assert all(b <= a + 1e-6 for a, b in pairwise(losses))


def test_tensors_of_a_real_models_size_are_chosen_at_once_and_the_gap_is_told() -> None:
    """Two hundred tensors in six types; the sizes are those of blocks, so nearly every byte can be spent."""
    options = named([[(9 * n, 100.0 / n), (11 * n, 30.0 / n), (17 * n, 1.0 / n)] for n in range(100, 300)], unit=1024)
    least, most = limits(options)
    budget = (least + most) // 2
    found = allocate(options, budget)
    assert budget * 0.995 < found.nbytes <= budget
    assert 0 <= found.gap < 1e-3


def test_of_two_types_that_lose_the_same_the_smaller_is_taken() -> None:
    assert allocate({"t": [Option("large", 64, 1.0), Option("small", 32, 1.0)]}, 64).kinds == {"t": "small"}


def test_a_budget_below_the_smallest_is_told() -> None:
    with pytest.raises(RecipeError, match="need 64 bytes, and 63 are"):
        allocate({"t": [Option("small", 64, 1.0)]}, 63)
