"""The error of each tensor: that of the definition, through every way in which weights are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.gguf.check import check
from pipeline import evaluate, quantize
from pipeline.evaluate import tensors
from pipeline.evaluate.figures import Evaluation
from pipeline.evaluate.tensors import tensor_errors
from tests.fixtures.random_llama import SMALL, write_checkpoint
from tests.fixtures.tiny import llama_keys, llama_weights, write
from tests.pipeline.evaluate.models import N_CTX, TEXTS, tiny


def errors(reference: Path, candidate: Path) -> dict[str, float]:
    return tensor_errors((reference, check(reference)), (candidate, check(candidate)))


@pytest.mark.parametrize("together", [1, 70, 1 << 22])
def test_it_is_the_root_mean_square_as_a_share_however_many_rows_are_looked_at_together(
    together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "_CHUNK", together)
    whole, near = llama_weights(), llama_weights()
    rng = np.random.default_rng(3)
    for name in ("token_embd.weight", "blk.0.ffn_down.weight"):
        near[name] += rng.normal(0, 0.1, near[name].shape).astype(np.float32)
    found = errors(write(tmp_path / "a.gguf", llama_keys(), whole), write(tmp_path / "b.gguf", llama_keys(), near))
    assert found.keys() == {name for name in whole if whole[name].any()}
    for name, error in found.items():
        lost = np.linalg.norm(near[name].astype(np.float64) - whole[name])
        assert error == pytest.approx(lost / np.linalg.norm(whole[name].astype(np.float64)), rel=1e-5)
        assert bool(error) == (name in ("token_embd.weight", "blk.0.ffn_down.weight"))


@pytest.mark.slow
def test_fewer_bits_are_larger_errors_and_what_has_another_shape_or_is_missing_has_none(tmp_path: Path) -> None:
    model = str(write_checkpoint(tmp_path / "m", SMALL))
    whole, eight, four = (quantize(model, recipe, out=tmp_path / f"{recipe}.gguf").path for recipe in ("F32", "Q8_0", "Q4_0"))
    of_eight, of_four = errors(whole, eight), errors(whole, four)
    matrices = [name for name, entry in check(whole).tensors.items() if len(entry.shape) == 2]
    assert matrices
    for name in matrices:
        assert 0.002 < of_eight[name] < 0.01 < of_four[name] < 0.15
    assert {of_four[name] for name in of_four.keys() - set(matrices)} == {0.0}

    weights = llama_weights()
    weights["blk.0.ffn_down.weight"] = weights["blk.0.ffn_down.weight"][:, :4].copy()
    del weights["output_norm.weight"]
    one, other = (
        write(tmp_path / "one.gguf", llama_keys(), llama_weights()),
        write(tmp_path / "other.gguf", llama_keys(), weights),
    )
    assert not {"blk.0.ffn_down.weight", "output_norm.weight"} & errors(one, other).keys()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("models")
    files = [tiny(folder / "same.gguf"), tiny(folder / "far.gguf", 0.03)]
    return evaluate(files, reference=tiny(folder / "whole.gguf"), texts=TEXTS, n_ctx=N_CTX, threads=1)


def test_an_evaluation_tells_them_of_each_candidate(found: Evaluation) -> None:
    same, far = found.candidates
    assert set(same.tensor_errors.values()) == {0.0}
    assert min(far.tensor_errors.values()) > 0
    assert found.reference is not None
    assert found.reference.tensor_errors == {}
    assert found.to_dict()["candidates"][1]["tensor_errors"] == far.tensor_errors
