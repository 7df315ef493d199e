"""A GGUF's rows go back to where the checkpoint has them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agent.gguf.types import F32
from pipeline.architectures.shared.tensor import Slice, Tensor
from pipeline.onepass.rows import SlabJob, apply
from pipeline.sources.checkpoint import TensorInfo
from pipeline.tune.places import restored, whole

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(1, 0.1, (6, 4)).astype(np.float32)
INFOS = {"w": TensorInfo("w", "F32", (6, 4), "f", 0, 96), "v": TensorInfo("v", "F32", (2, 4), "f", 0, 32)}
PLAIN = Tensor("t", (6, 4), (Slice("w"),))

CASES = {
    "as it is": PLAIN,
    "rows reordered": replace(PLAIN, row_order=RNG.permutation(6)),
    "columns reordered": replace(PLAIN, column_order=RNG.permutation(4)),
    "rows multiplied": replace(PLAIN, row_order=RNG.permutation(6), scale=RNG.random(6).astype(np.float32) + 1),
    "one added": replace(PLAIN, function="add_one"),
    "minus exp": replace(PLAIN, function="neg_exp"),
    "transposed": replace(PLAIN, shape=(4, 6), transposed=True, row_order=RNG.permutation(4)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_way_back_undoes_the_way_there(name: str) -> None:
    t = CASES[name]
    weights = WEIGHTS if t.row_order is None or t.transposed else WEIGHTS[t.row_order]
    rows = t.row_order if t.transposed else None
    there = apply(
        weights, SlabJob("t", np.empty(0, np.uint8), F32, 4, F32, rows, t.column_order, t.function, t.scale, t.transposed)
    )
    ((source, start, back),) = restored(there, t, INFOS)
    assert (source, start) == ("w", 0)
    np.testing.assert_allclose(back, WEIGHTS, rtol=1e-5)


def test_a_tensor_of_several_sources_is_taken_apart() -> None:
    both = Tensor("t", (5, 4), (Slice("v"), Slice("w", 1, 4)))
    there = np.concatenate([WEIGHTS[:2] * 2, WEIGHTS[1:4]])
    (first, second) = restored(there, both, INFOS)
    assert (first[:2], second[:2]) == (("v", 0), ("w", 1))
    np.testing.assert_array_equal(second[2], WEIGHTS[1:4])
    assert not whole(both, INFOS)
    assert whole(PLAIN, INFOS)
    assert not whole(Tensor("t", (5, 4), (Slice("w", 1),)), INFOS)


def test_columns_that_were_left_out_cannot_come_back() -> None:
    assert list(restored(WEIGHTS[:, :2], replace(PLAIN, shape=(6, 2), column_order=np.array([0, 2])), INFOS)) == []
