"""The options of a budget as a person types them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.command import one_line, only_json, sprig
from tests.fixtures.random_llama import SMALL, write_checkpoint


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--size", "1MB", "-q", "Q4_0"), "-q and a budget"),
        (("--bpw", "5", "--device", "pi5"), "--device and a budget"),
        (("--bpw", "5", "--size", "1MB"), "give one of them"),
        (("--size", "much"), "is not a size such as 400MB"),
        (("--types", "Q4_0"), "belongs to a budget"),
        (("--bpw", "5", "--types", "Q4_0,Q44"), "--types: 'Q44' is"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(args: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = sprig("quantize", tmp_path, *args, home=tmp_path, COLUMNS="300")
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.slow
def test_a_dry_run_says_what_would_be_measured(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model", SMALL)
    told = only_json(sprig("quantize", model, "--bpw", "5.5", "--dry-run", "--json", home=tmp_path / "home"))
    assert told["recipe"] == "budget-5.5bpw"
    assert 5.4 < told["bits_per_weight"] <= 5.5
    assert any("a run measures 30 tensors and 11 probes first" in note for note in told["notes"])
    assert not (tmp_path / "home").exists()


def test_a_budget_that_is_too_small_is_one_line(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model", SMALL)
    assert "cannot be 100,000 bytes: with " in one_line(sprig("quantize", model, "--size", "100kB", home=tmp_path / "home"))
