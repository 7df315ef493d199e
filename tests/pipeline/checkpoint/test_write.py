"""A checkpoint is written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agent.errors import OutputError
from agent.files import publish_folder
from pipeline.checkpoint.write import NewTensor, as_stored, checkpoint_draft, write_checkpoint
from pipeline.format.ggml import Bytes
from pipeline.sources.merged import floats
from pipeline.sources.source import open_checkpoint, open_source

ARRAYS = {f"t{i}": np.arange(6 * (i + 1), dtype=np.float32).reshape(-1, 3) - 4 for i in range(4)}
TENSORS = [
    NewTensor(name, name, dtype, a.shape) for (name, a), dtype in zip(ARRAYS.items(), ("F32", "F16", "BF16", "F32"), strict=True)
]


def content(tensor: NewTensor) -> Bytes:
    return as_stored(ARRAYS[tensor.name], tensor.dtype)


@pytest.mark.parametrize("shard_bytes", [10_000, 60])
def test_what_is_written_is_read_again(tmp_path: Path, shard_bytes: int) -> None:
    out = tmp_path / "new" / "model"
    with checkpoint_draft(out) as draft:
        size = write_checkpoint(draft, TENSORS, content, {"config.json": b"{}", "a/b.txt": b"x"}, shard_bytes=shard_bytes)
        publish_folder(draft, out)
    assert (out / "a" / "b.txt").read_bytes() == b"x"
    assert size == sum(p.stat().st_size for p in out.glob("*.safetensors"))
    assert (len(list(out.glob("*.safetensors"))) > 1) == (shard_bytes == 60)
    with open_checkpoint(open_source(str(out))) as checkpoint:
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(floats(checkpoint, name), array)
    if shard_bytes == 60:
        index = json.loads((out / "model.safetensors.index.json").read_bytes())
        assert set(index["weight_map"]) == set(ARRAYS)
    assert [p.name for p in out.parent.iterdir()] == ["model"]


def test_the_library_reads_it_too(tmp_path: Path) -> None:
    load = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").load_file
    with checkpoint_draft(tmp_path / "m") as draft:
        write_checkpoint(draft, TENSORS[:2], content, {})
        loaded = load(draft / "model.safetensors")
    for name in ("t0", "t1"):
        np.testing.assert_array_equal(loaded[name], ARRAYS[name])


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fails(tensor: NewTensor) -> Bytes:
        if tensor.name == "t2":
            raise OutputError("the disk is full")
        return content(tensor)

    with pytest.raises(OutputError, match="full"), checkpoint_draft(tmp_path / "m") as draft:
        write_checkpoint(draft, TENSORS, fails, {})
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(tmp_path: Path) -> None:
    for name, make in (("file", Path.touch), ("folder", lambda p: (p / "x").mkdir(parents=True))):
        make(tmp_path / name)
        with pytest.raises(OutputError, match="exists already"), checkpoint_draft(tmp_path / name):
            pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_bf16_is_rounded_to_nearest_even_and_f16_does_not_overflow() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -3.1415927], np.float32)
    bits = values.view(np.uint32)
    expected = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    np.testing.assert_array_equal(as_stored(values, "BF16").view("<u2"), expected)
    with pytest.raises(OutputError, match="too large"):
        as_stored(np.array([1e6], np.float32), "F16")
