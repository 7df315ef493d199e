"""How much stays, as a person says it, and the sizes that kernels like."""

from __future__ import annotations

import pytest

from agent.errors import RecipeError
from pipeline.prune.amount import read_amount, read_depth


@pytest.mark.parametrize(
    ("said", "total", "stay"),
    [
        ("1280", 1536, 1280), ("20%", 1536, 1280), (1300, 1536, 1280), ("1400", 1536, 1408), ("1535", 1536, 1504),
        ("128", 160, 128), ("10 %", 160, 128), ("12.5%", 8192, 7168), ("33", 160, 32), ("5", 160, 32),
    ],
)  # fmt: skip
def test_sizes_are_rounded_to_what_kernels_like(said: str | int, total: int, stay: int) -> None:
    amount = read_amount(said, "--ffn")
    assert amount is not None
    if (said, total) == ("5", 160):
        with pytest.raises(RecipeError, match="multiples of 32"):
            amount.of_kernels(total)
    else:
        assert amount.of_kernels(total) == stay


@pytest.mark.parametrize("said", ["0%", "100%", "-3", "many", "", "1e3", "120%"])
def test_what_says_nothing_is_refused(said: str) -> None:
    with pytest.raises(RecipeError, match="is no amount"):
        read_amount(said, "--ffn")


@pytest.mark.parametrize("said", ["0", "160", "1000"])
def test_some_must_go_and_some_must_stay(said: str) -> None:
    amount = read_amount(said, "--ffn")
    assert amount is not None
    with pytest.raises(RecipeError, match="1 to 159 can stay"):
        amount.of(160)


def test_layers_can_be_named() -> None:
    depth = read_depth("drop:10,12-14")
    assert depth is not None
    assert depth.drop == (10, 12, 13, 14)
    assert read_depth(None) is None
    for said in ("drop:", "drop:5-3", "drop:a", "drop:-1"):
        with pytest.raises(RecipeError, match="drop:10,12-14"):
            read_depth(said)
