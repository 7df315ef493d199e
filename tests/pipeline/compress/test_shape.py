"""How large a model is after a cut that has not been made: what is foreseen is what is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.compress.plan import WayDown
from pipeline.compress.propose import way_shape
from pipeline.compress.shape import ModelShape
from pipeline.preflight import Preflight
from pipeline.quantize import dry_run
from pipeline.recipes.budget import FAST
from tests.fixtures.random_llama import LlamaShape, write_checkpoint

BASE = LlamaShape(256, 512, 2, 4, 2, 512)


def shape(folder: Path, of: LlamaShape) -> tuple[ModelShape, Preflight]:
    write_checkpoint(folder, of)
    plan = dry_run(str(folder), "Q8_0", folder / "x.gguf")
    assert isinstance(plan, Preflight)
    return ModelShape.of(plan), plan


def test_the_largest_file_is_that_of_the_largest_type(tmp_path: Path) -> None:
    found, plan = shape(tmp_path / "m", BASE)
    assert found.limits(("Q4_0", "Q8_0"))[1] == plan.size
    assert (found.vocabulary, found.ffn, found.n_weights) == (512, 512, plan.n_weights)
    # inputs of 256 of attention and its output, of 256 and 512 of the feed-forward part, in two layers, two folds of a triangle
    assert found.moments() == 2 * 4 * (3 * 256**2 + 512**2)


@pytest.mark.parametrize(
    ("prune", "cut"),
    [
        ({"ffn": 256}, LlamaShape(256, 256, 2, 4, 2, 512)),
        ({"ffn": "50%"}, LlamaShape(256, 256, 2, 4, 2, 512)),
        ({"vocab_size": 384}, LlamaShape(256, 512, 2, 4, 2, 384)),
        ({"vocab_size": "384", "ffn": "256"}, LlamaShape(256, 256, 2, 4, 2, 384)),
    ],
)
def test_a_cut_is_foreseen(tmp_path: Path, prune: dict[str, object], cut: LlamaShape) -> None:
    before, _ = shape(tmp_path / "before", BASE)
    after, _ = shape(tmp_path / "after", cut)
    found = way_shape(WayDown("x", prune), before)
    assert found.n_weights == after.n_weights
    for one, other in zip(found.limits(FAST), after.limits(FAST), strict=True):
        assert one == pytest.approx(other, abs=8192)  # the vocabulary in the header is only estimated


@pytest.mark.parametrize("prune", [{"heads": 2}, {"ffn": "many"}, {"ffn": "600"}, {"vocab_size": 9999}, {}])
def test_what_cannot_be_foreseen_leaves_it_as_it_is(tmp_path: Path, prune: dict[str, object]) -> None:
    before, _ = shape(tmp_path / "m", BASE)
    assert way_shape(WayDown("x", prune), before) == before
