"""Safetensors headers are untrusted: a whole one is read exactly, and any other ends in one line, whatever is in it."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import CheckpointError, UnsupportedError
from pipeline.sources.checkpoint import (
    DTYPE_BYTES,
    MappedCheckpoint,
    TensorInfo,
    merge_headers,
    parse_safetensors_header,
    read_safetensors_header,
)
from pipeline.sources.torch_bin import TorchCheckpoint
from tests.fixtures.generated import runs
from tests.fixtures.paths import ROOT
from tests.fixtures.small_checkpoints import write_safetensors

FILE = "model.safetensors"
SETTINGS = settings(derandomize=True, deadline=None, max_examples=runs(150), suppress_health_check=list(HealthCheck))


def packed(header: Any, data: int = 0, *, length: int | None = None) -> tuple[bytes, int]:
    """A file's head with this header, and the size of the file with ``data`` bytes behind it."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    head = (len(raw) if length is None else length).to_bytes(8, "little") + raw
    return head, len(head) + data


def refusal(head: bytes, size: int) -> str:
    with pytest.raises(CheckpointError) as caught:
        parse_safetensors_header(FILE, head, size)
    message = str(caught.value)
    assert FILE in message
    assert "\n" not in message
    assert len(message) < 600
    return message


def read_or_refused(head: bytes, size: int) -> dict[str, TensorInfo] | str:
    try:
        return parse_safetensors_header(FILE, head, size)
    except CheckpointError as e:
        return str(e)


def entry(shape: list[Any], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_every_tensor_is_found_where_it_lies(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {
        "a": np.arange(12, dtype=np.float32).reshape(3, 4),
        "scalar": np.array(7, np.float32),
        "empty": np.zeros((0, 5), np.float32),
        "cube": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    }
    write_safetensors(tmp_path / FILE, arrays)
    infos = read_safetensors_header(tmp_path / FILE)
    assert {n: i.shape for n, i in infos.items()} == {n: a.shape for n, a in arrays.items()}
    with MappedCheckpoint(tmp_path, infos) as checkpoint:
        for name, array in arrays.items():
            info = infos[name]
            rows = checkpoint.rows(name, 0, info.n_rows)
            assert rows.tobytes() == array.tobytes()
            assert rows.shape == (info.n_rows, info.row_bytes)
        assert checkpoint.rows("cube", 2, 5).tobytes() == arrays["cube"].reshape(6, 4)[2:5].tobytes()


def test_it_reads_what_the_safetensors_library_writes(tmp_path: Path) -> None:
    numpy_io = pytest.importorskip("safetensors.numpy")
    arrays = {f"t{i}": np.random.default_rng(i).standard_normal((i + 1, 8)).astype(np.float16) for i in range(5)}
    numpy_io.save_file(arrays, tmp_path / FILE, metadata={"format": "pt"})
    with MappedCheckpoint(tmp_path, read_safetensors_header(tmp_path / FILE)) as checkpoint:
        for name, array in arrays.items():
            assert checkpoint.rows(name, 0, len(array)).tobytes() == array.tobytes()
            assert checkpoint.tensors[name].dtype == "F16"


def test_a_truncated_file_is_told_from_a_whole_one_at_every_length(tmp_path: Path) -> None:
    write_safetensors(tmp_path / FILE, {"a": np.ones((4, 4), np.float32), "b": np.ones(3, np.float32)})
    whole = (tmp_path / FILE).read_bytes()
    parse_safetensors_header(FILE, whole, len(whole))
    for length in range(len(whole)):
        assert "download it again" in refusal(whole[:length], length)
    assert "lie behind" in refusal(whole + b"x", len(whole) + 1)


def test_what_is_often_found_instead_of_weights_is_called_by_its_name(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"
    assert "Git LFS pointer" in refusal(pointer, len(pointer))
    (tmp_path / FILE).write_bytes(pointer)
    with pytest.raises(CheckpointError, match="Git LFS pointer"):
        read_safetensors_header(tmp_path / FILE)
    page = b"<!DOCTYPE html><html><body>404</body></html>" * 100
    assert "not a whole safetensors file" in refusal(page, len(page))
    with pytest.raises(CheckpointError, match="cannot read"):
        read_safetensors_header(tmp_path / "gone.safetensors")


@pytest.mark.parametrize(
    ("header", "data", "said"),
    [
        ({"a": entry([4], 0, 16), "b": entry([4], 8, 24)}, 24, "overlaps"),
        ({"a": entry([4], 0, 16), "b": entry([4], 20, 36)}, 36, "hole"),
        ({"a": entry([4], 4, 20)}, 20, "hole"),
        ({"a": entry([4], 0, 16)}, 12, "ends at byte"),
        ({"a": entry([5], 0, 16)}, 16, "cannot be 16 bytes"),
        ({"a": entry([-4], 0, 16)}, 16, "not one that can be"),
        ({"a": entry([4.0], 0, 16)}, 16, "not one that can be"),
        ({"a": entry([True], 0, 4)}, 4, "not one that can be"),
        ({"a": entry([1 << 63], 0, 1 << 65)}, 16, "not one that can be"),
        ({"a": entry([10**4000] * 1000, 0, 16)}, 16, "not one that can be"),
        ({"a": entry([1] * 100_000, 0, 4)}, 4, "not one that can be"),
        ({"a": entry([4], 16, 0)}, 16, "cannot be -16 bytes"),
        ({"a": entry([4], 0, 16, "Q4")}, 16, "unknown data type"),
        ({"a": entry([4], 0, 16, "F" * 100_000)}, 16, "unknown data type"),
        ({"x" * 100_000: entry([5], 0, 16)}, 16, "cannot be 16 bytes"),
        ({"a": {"dtype": "F32", "shape": [4]}}, 16, "malformed"),
        ({"a": [1, 2, 3]}, 16, "malformed"),
        ({"a": {"dtype": "F32", "shape": 4, "data_offsets": [0, 16]}}, 16, "malformed"),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8, 16]}}, 16, "malformed"),
        ([1, 2], 0, "not a JSON object"),
        (b'{"a": ', 0, "not a JSON object"),
        (b'{"\xff": 1}', 0, "not a JSON object"),
        ('{"a": 1}'.encode("utf-16"), 0, "not a JSON object"),
        (b'{"a": 1' + b"0" * 5000 + b"}", 0, "not a JSON object"),
        (b"[" * 100_000 + b"]" * 100_000, 0, "not a JSON object"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 0, "not a JSON object"),
    ],
)
def test_a_header_that_lies_is_refused(header: Any, data: int, said: str) -> None:
    assert said in refusal(*packed(header, data))


def test_a_header_longer_than_its_file_is_not_read() -> None:
    assert "a header of 99999999999" in refusal(*packed({}, 0, length=99_999_999_999))
    assert "a header of 100000001" in refusal(b"\1\xe1\xf5\5\0\0\0\0{}", 200_000_000)
    assert "only 10 of 58" in refusal((50).to_bytes(8, "little") + b"{}", 100)


shapes = st.lists(st.integers(0, 5), max_size=4)


@SETTINGS
@given(st.lists(st.tuples(shapes, st.sampled_from(sorted(DTYPE_BYTES))), max_size=6))
def test_whatever_is_laid_out_rightly_is_found_again(tensors: list[tuple[list[int], str]]) -> None:
    header, position = {}, 0
    for i, (shape, dtype) in enumerate(tensors):
        size = int(np.prod(shape, dtype=np.int64)) * DTYPE_BYTES[dtype]
        header[f"t{i}"] = entry(shape, position, position + size, dtype)
        position += size
    head, size = packed(header, position)
    infos = parse_safetensors_header(FILE, head, size)
    assert [(list(i.shape), i.dtype) for i in infos.values()] == tensors
    assert sum(i.nbytes for i in infos.values()) == position
    assert all(i.offset >= len(head) and i.offset + i.nbytes <= size for i in infos.values())


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "I64"]) | junk,
        "shape": st.lists(st.integers(-2, 6), max_size=4) | junk,
        "data_offsets": st.lists(st.integers(-2, 64), min_size=2, max_size=2) | junk,
    },
)


@SETTINGS
@given(st.dictionaries(st.text(max_size=8), entries | junk, max_size=4) | junk, st.integers(0, 64))
def test_no_header_gets_past_unless_every_tensor_lies_within_the_file(header: Any, data: int) -> None:
    head, size = packed(header, data)
    infos = read_or_refused(head, size)
    if isinstance(infos, str):
        assert "\n" not in infos
    else:
        assert sum(i.nbytes for i in infos.values()) == data
        assert all(len(head) <= i.offset <= i.offset + i.nbytes <= size for i in infos.values())


@SETTINGS
@given(st.binary(max_size=200), st.integers(0, 10_000))
def test_bytes_at_random_are_refused_in_one_line(raw: bytes, more: int) -> None:
    infos = read_or_refused(raw, len(raw) + more)
    assert infos == {} or (isinstance(infos, str) and "\n" not in infos)


def test_shards_must_hold_what_the_index_promises() -> None:
    def table(file: str, *names: str) -> dict[str, TensorInfo]:
        return {n: TensorInfo(n, "F32", (1,), file, 8, 4) for n in names}

    headers = {"1": table("1", "a", "b"), "2": table("2", "c")}
    assert set(merge_headers(headers, {"a": "1", "b": "1", "c": "2"})) == {"a", "b", "c"}
    with pytest.raises(CheckpointError, match=r"'d' should be in 2 and is not \(1 such\)"):
        merge_headers(headers, {"a": "1", "d": "2"})
    with pytest.raises(CheckpointError, match="'a' should be in 2"):
        merge_headers(headers, {"a": "2"})
    with pytest.raises(CheckpointError, match="'a' is in both 1 and 3"):
        merge_headers({**headers, "3": table("3", "a")}, None)


# Torch's own format.


def test_a_torch_checkpoint_gives_the_same_rows(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    base = torch.arange(60, dtype=torch.float32).reshape(6, 10)
    weights = {"a": base, "turned": base.t(), "half": base.to(torch.bfloat16), "scalar": torch.tensor(3.0), "tied": base}
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with TorchCheckpoint({"pytorch_model.bin": tmp_path / "pytorch_model.bin"}) as checkpoint:
        assert checkpoint.tensors["half"] == TensorInfo("half", "BF16", (6, 10), "pytorch_model.bin", 0, 120)
        assert checkpoint.rows("a", 1, 3).tobytes() == base[1:3].numpy().tobytes()
        assert checkpoint.rows("turned", 2, 9).tobytes() == base.numpy().T[2:9].tobytes()
        half = checkpoint.rows("half", 0, 6).view(np.uint16).astype(np.uint32) << 16
        assert np.array_equal(half.view(np.float32), base.numpy())
        assert checkpoint.rows("scalar", 0, 1).view(np.float32).item() == 3.0


class Payload:
    """A pickle that writes a file when it is loaded the careless way."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"echo ran > {self.canary}",))


def test_a_checkpoint_from_before_torch_1_6_is_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    file = tmp_path / "pytorch_model.bin"
    weights = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    torch.save({"a": weights}, file, _use_new_zipfile_serialization=False)
    with TorchCheckpoint({file.name: file}) as checkpoint:
        assert checkpoint.rows("a", 1, 3).tobytes() == weights[1:].numpy().tobytes()


@pytest.mark.parametrize("form", ["torch zip", "torch before 1.6", "bare pickle"])
def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path: Path, form: str) -> None:
    torch = pytest.importorskip("torch")
    canary, file = tmp_path / "canary", tmp_path / "pytorch_model.bin"
    if form == "bare pickle":
        file.write_bytes(pickle.dumps(Payload(canary)))
    else:
        table = {"a": torch.ones(2, 2), "b": Payload(canary)}
        torch.save(table, file, _use_new_zipfile_serialization=form == "torch zip")
    with pytest.raises(CheckpointError, match="could be code, and was not run") as caught:
        TorchCheckpoint({file.name: file})
    assert "\n" not in str(caught.value)
    assert not canary.exists()
    if form != "bare pickle":
        torch.load(file, weights_only=False)
        assert canary.exists(), "the trap works: the careless way does run it"


def test_a_torch_file_that_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    file = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(64, 64)}, file)
    whole = file.read_bytes()
    broken: list[bytes] = [b"", b"not a checkpoint", whole[: len(whole) // 2], b"version https://git-lfs.github.com/spec/v1\n"]
    for content in broken:
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"^pytorch_model\.bin [^\n]*$"):
            TorchCheckpoint({file.name: file})
    for table in ([torch.ones(2)], {"a": 3}, {"model": {"a": torch.ones(2)}}, torch.ones(2)):
        torch.save(table, file)
        with pytest.raises(CheckpointError, match="not a table of named tensors"):
            TorchCheckpoint({file.name: file})
    torch.save({"a": torch.ones(2, 2).to_sparse()}, file)
    with pytest.raises(CheckpointError, match="use a plain checkpoint"):
        TorchCheckpoint({file.name: file})


def test_an_old_torch_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(UnsupportedError, match="CVE-2025-32434"):
        TorchCheckpoint({})


def test_without_torch_the_extra_is_named_and_nothing_else_needs_it() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import pipeline.sources.source\n"
        "from pipeline.sources.torch_bin import TorchCheckpoint\n"
        "try: TorchCheckpoint({})\n"
        "except Exception as e: print(type(e).__name__, e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.startswith("UnsupportedError")
    assert ".[train]" in done.stdout
