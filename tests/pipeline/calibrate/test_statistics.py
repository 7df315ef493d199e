"""Statistics are a folder: of one model however it is quantized, and refused in one line when they are of another or broken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agent.errors import SprigError
from agent.gguf.reader import read_header
from pipeline.calibrate.collect import collect
from pipeline.calibrate.inputs import Input
from pipeline.calibrate.moments import Moments, unpack
from pipeline.calibrate.statistics import Statistics, moments_file
from pipeline.quantize import quantize
from tests.fixtures.tiny import llama, llama_keys, llama_weights, write

WINDOWS = [[1, *range(10, 25)], [1, *range(40, 55)]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("statistics") / "tiny.gguf")


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    collect(model, WINDOWS, tmp_path / "s", hessians=False, threads=1)
    return tmp_path / "s"


def test_they_are_of_a_model_and_of_what_is_quantized_from_it(model: Path, folder: Path, tmp_path: Path) -> None:
    small = quantize(str(model), "Q8_0", tmp_path / "small.gguf").path
    found = Statistics.open(folder, model=small)
    shapes = {name: t.shape for name, t in read_header(small).tensors.items()}
    found.check(shapes)
    weights = llama_weights()
    weights["blk.0.attn_norm.weight"] *= 1.5
    tuned = write(tmp_path / "tuned.gguf", llama_keys(), weights)
    with pytest.raises(SprigError, match=r"measured on another model \(tiny\.gguf\)"):
        Statistics.open(folder, model=tuned)
    with pytest.raises(SprigError, match=r"no such tensor for blk\.0\.attn_q\.weight"):
        found.check({name: shape for name, shape in shapes.items() if name != "blk.0.attn_q.weight"})
    with pytest.raises(SprigError, match="it has values for block 0, and this one has none there"):
        found.check({"token_embd.weight": (286, 32)})
    with pytest.raises(SprigError, match="it has nothing for block 9 of this one"):
        found.check({**shapes, "blk.9.attn_q.weight": (32, 32)})


def test_without_second_moments_there_is_the_imatrix(folder: Path) -> None:
    found = Statistics.open(folder)
    assert found.hessian("blk.0.attn_q.weight") is None
    squares = found.squares("blk.0.attn_k.weight")
    assert squares is not None
    np.testing.assert_array_equal(squares, found.imatrix().entries["blk.0.attn_k.weight"])
    assert found.squares("output_norm.weight") is None
    assert (found.facts.tokens, found.facts.windows, found.facts.chunk) == (32, 2, 16)


def test_what_is_missing_or_broken_is_one_line(folder: Path) -> None:
    with pytest.raises(SprigError, match="holds no statistics"):
        Statistics.open(folder.parent)
    path = moments_file(folder, 0, "A")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SprigError, match=r"0000\.A\.npz: it is broken"):
        Statistics.open(folder).squares("blk.0.attn_q.weight")
    path.unlink()
    with pytest.raises(SprigError, match=r"0000\.A\.npz: No such file"):
        Statistics.open(folder).squares("blk.0.attn_q.weight")
    facts = json.loads((folder / "statistics.json").read_bytes())
    for broken in ("{", json.dumps({**facts, "format": 99}), json.dumps({**facts, "inputs": [3]})):
        (folder / "statistics.json").write_text(broken)
        with pytest.raises(SprigError, match="another version of Sprig"):
            Statistics.open(folder)


@pytest.mark.parametrize("columns", [1, 2, 7, 300])
def test_a_packed_triangle_is_the_whole_matrix(columns: int) -> None:
    from scipy.linalg.lapack import ssfrk

    rows = np.random.default_rng(0).normal(size=(20, columns)).astype(np.float32)
    packed = ssfrk(columns, 20, 1.0, rows.T, 0.0, np.zeros(columns * (columns + 1) // 2, np.float32))
    np.testing.assert_allclose(unpack(packed, columns), rows.T @ rows, rtol=1e-4, atol=1e-4)


def test_second_moments_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    one = Input(("blk.0.attn_q.weight",), 4, 1, routed=False, head=False)
    sums = Moments(one, products=True)
    sums.add(0, np.ones((3, 4), np.float32))
    assert sums.packed is not None
    sums.packed[0, 2] = np.nan
    sums.save(tmp_path / "0.npz")
    with pytest.raises(SprigError, match=r"0\.npz does not hold the sums of blk\.0\.attn_q\.weight; calibrate again"):
        Moments.load(tmp_path / "0.npz", one, products=True)
