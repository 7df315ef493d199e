"""llama.cpp's imatrix file: what was written is read back, and a broken or lying one is one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import RecipeError
from agent.gguf.types import F32
from pipeline.format.gguf_file import TensorSpec, lay_out, padded
from pipeline.format.imatrix import SquareSums, merge_sums, read_imatrix, write_imatrix

KEYS = {"general.type": "imatrix", "imatrix.datasets": ["wiki.txt"], "imatrix.chunk_count": 3}
ARRAYS = {"a.in_sum2": np.ones((2, 8)), "a.counts": np.full((2, 1), 4.0)}


def write(path: Path, keys: dict[str, Any], arrays: dict[str, Any]) -> Path:
    stored = {name: np.asarray(a, "<f4") for name, a in arrays.items()}
    layout = lay_out(keys, [TensorSpec(name, a.shape, F32) for name, a in stored.items()])
    path.write_bytes(layout.header + b"".join(a.tobytes().ljust(padded(a.nbytes), b"\0") for a in stored.values()))
    return path


def test_sums_become_means_and_an_expert_that_saw_nothing_counts_as_one(tmp_path: Path) -> None:
    path = tmp_path / "i.gguf"
    sums = {"w": np.arange(16, dtype=np.float32).reshape(2, 8)}
    write_imatrix(path, sums, {"w": np.array([4, 0], np.float32)}, datasets=["a", "b"], chunks=5, chunk_size=512)
    matrix = read_imatrix(path)
    assert (matrix.datasets, matrix.chunks, matrix.file) == (("a", "b"), 5, "i.gguf")
    assert np.array_equal(matrix.entries["w"], np.stack([np.arange(8) / 4, np.ones(8)]).astype(np.float32))
    assert matrix.of("w", (2, 32, 8)) is not None
    with pytest.raises(RecipeError, match="another model"):
        matrix.of("w", (32, 8))


def test_files_of_another_number_of_blocks_are_not_merged() -> None:
    def sums(*blocks: int) -> SquareSums:
        names = [f"blk.{i}.attn_q.weight" for i in blocks]
        return SquareSums({n: np.ones((1, 8), np.float32) for n in names}, {n: np.ones(1, np.float32) for n in names}, (), 1, 512)

    assert merge_sums([sums(0, 1), sums(0, 1)]).counts["blk.1.attn_q.weight"] == 2
    with pytest.raises(RecipeError, match="another model than the first: it has nothing for block 1"):
        merge_sums([sums(0, 1), sums(0)])
    with pytest.raises(RecipeError, match="another model than the first: it has values for block 10"):
        merge_sums([sums(0, 1), sums(0, 1, 2, 10)])


def test_the_hash_is_the_files_own(tmp_path: Path) -> None:
    one, two = (read_imatrix(write(tmp_path / n, {**KEYS, "x": n}, ARRAYS)).sha256 for n in ("one", "two"))
    assert one != two
    assert read_imatrix(write(tmp_path / "other name", {**KEYS, "x": "one"}, ARRAYS)).sha256 == one


BROKEN: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no imatrix": ({**KEYS, "general.type": "model"}, ARRAYS, "not an imatrix"),
    "a list where a word is due": ({**KEYS, "general.type": ["imatrix"]}, ARRAYS, "not an imatrix"),
    "numbers where a word is due": ({**KEYS, "general.type": [1, 2]}, ARRAYS, "not an imatrix"),
    "chunks in words": ({**KEYS, "imatrix.chunk_count": "many"}, ARRAYS, "in llama.cpp's way"),
    "chunks without end": ({**KEYS, "imatrix.chunk_count": float("inf")}, ARRAYS, "in llama.cpp's way"),
    "one dataset and no list": ({**KEYS, "imatrix.datasets": "wiki.txt"}, ARRAYS, "in llama.cpp's way"),
    "nothing": (KEYS, {}, "no statistics"),
    "no counts": (KEYS, {"a.in_sum2": np.ones((1, 8))}, "no F32 counts for a"),
    "counts of another number": (KEYS, {**ARRAYS, "a.counts": np.ones((3, 1))}, "3 counts"),
    "a count that is none": (KEYS, {**ARRAYS, "a.counts": np.full((2, 1), np.nan)}, "no sums of squares"),
    "an infinite sum": (KEYS, {**ARRAYS, "a.in_sum2": np.full((2, 8), np.inf)}, "no sums of squares"),
    "a square below zero": (KEYS, {**ARRAYS, "a.in_sum2": -np.ones((2, 8))}, "no sums of squares"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_imatrix_is_one_line(what: str, tmp_path: Path) -> None:
    keys, arrays, says = BROKEN[what]
    with pytest.raises(RecipeError, match=says) as caught:
        read_imatrix(write(tmp_path / "i.gguf", keys, arrays))
    assert "\n" not in str(caught.value)
