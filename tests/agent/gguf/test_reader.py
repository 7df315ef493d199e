"""Reading headers: what is true comes out, what lies is refused in one line, cheaply."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import GGUFError
from agent.gguf.reader import read_header
from agent.gguf.types import TYPES_BY_NAME
from pipeline.format.ggml import library
from pipeline.format.gguf_file import TensorSpec, lay_out, pack_value
from tests.fixtures import tiny
from tests.fixtures.generated import runs


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def refused(path: Path) -> str:
    with pytest.raises(GGUFError) as caught:
        read_header(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def test_what_was_laid_out_is_read_back(good: Path) -> None:
    header = read_header(good)
    assert header.version == 3
    assert header.keys["llama.block_count"] == 1
    assert header.types["llama.block_count"] == "u32"
    assert header.keys["tokenizer.ggml.tokens"] == tiny.TOKENS
    assert header.types["tokenizer.ggml.tokens"] == "arr[str]"
    assert header.keys["tokenizer.ggml.scores"].dtype == np.float32
    entry = header.tensors["blk.0.ffn_down.weight"]
    assert entry.shape == (tiny.WIDTH, tiny.FFN)
    with good.open("rb") as f:
        f.seek(entry.offset)
        stored = np.frombuffer(f.read(entry.nbytes), np.float32).reshape(entry.shape)
    np.testing.assert_array_equal(stored, tiny.llama_weights()["blk.0.ffn_down.weight"])


def test_the_gguf_package_writes_every_kind_of_key_and_both_readers_agree(tmp_path: Path) -> None:
    path = tmp_path / "all.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    kinds = {
        "u8": 200, "i8": -100, "u16": 65_000, "i16": -30_000, "u32": 4_000_000_000, "i32": -2_000_000_000,
        "u64": 1 << 60, "i64": -(1 << 60), "f32": 0.5, "f64": 1e300, "bool": True, "str": "grüße 🌱",
    }  # fmt: skip
    adders = {
        "u8": writer.add_uint8, "i8": writer.add_int8, "u16": writer.add_uint16, "i16": writer.add_int16,
        "u32": writer.add_uint32, "i32": writer.add_int32, "u64": writer.add_uint64, "i64": writer.add_int64,
        "f32": writer.add_float32, "f64": writer.add_float64, "bool": writer.add_bool, "str": writer.add_string,
    }  # fmt: skip
    for kind, value in kinds.items():
        adders[kind](f"test.{kind}", value)
    writer.add_array("test.words", ["a", "", "ß"])
    writer.add_array("test.numbers", [1, -2, 3])
    writer.add_tensor("a", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("b", np.arange(6, dtype=np.float16).reshape(1, 2, 3))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    header, theirs = read_header(path), gguf.GGUFReader(str(path))
    for kind, value in kinds.items():
        assert (header.types[f"test.{kind}"], header.keys[f"test.{kind}"]) == (kind, value)
        assert theirs.fields[f"test.{kind}"].contents() == value
    assert header.keys["test.words"] == ["a", "", "ß"]
    assert header.keys["test.numbers"].tolist() == [1, -2, 3]
    assert [(t.name, t.data_offset, t.n_bytes, list(t.shape)[::-1]) for t in theirs.tensors] == [
        (t.name, t.offset, t.nbytes, list(t.shape)) for t in header.tensors.values()
    ]


def test_raw_keys_can_be_copied_into_another_file(good: Path, tmp_path: Path) -> None:
    header = read_header(good)
    body = b"".join(struct.pack("<Q", len(name)) + name.encode() + raw for name, raw in header.raw_keys.items())
    assert good.read_bytes()[24 : 24 + len(body)] == body
    again = tmp_path / "copy.gguf"
    again.write_bytes(struct.pack("<IIQQ", 0x46554747, 3, 0, len(header.raw_keys)) + body)
    assert read_header(again).raw_keys == header.raw_keys
    assert all(raw == pack_value(header.keys[name]) for name, raw in header.raw_keys.items())


def test_bytes_that_are_not_utf8_survive(tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "x.gguf", {"a.word": b"\xff\xfe", "a.words": [b"ok", b"\xc3("]}, tiny.llama_weights())
    header = read_header(path)
    assert header.keys["a.word"].encode("utf-8", "surrogateescape") == b"\xff\xfe"
    assert [w.encode("utf-8", "surrogateescape") for w in header.keys["a.words"]] == [b"ok", b"\xc3("]


def test_a_large_vocabulary_is_read_in_linear_time(tmp_path: Path) -> None:
    tokens = [f"tok{i}é" for i in range(150_000)]
    path = tiny.write(tmp_path / "x.gguf", {"tokenizer.ggml.tokens": tokens}, {"a": np.zeros(4, np.float32)})
    started = time.process_time()
    header = read_header(path)
    assert header.keys["tokenizer.ggml.tokens"] == tokens
    assert time.process_time() - started < 30, "each token costs more than the one before"


def test_a_string_array_may_cross_any_chunk_border(tmp_path: Path) -> None:
    """Chunks of the head are 1 MiB at first: words of 1000 bytes and a shift put a border into every field."""
    for shift in (0, 1, 5, 8, 9, 500):
        words = ["x" * shift, *(f"{i:04d}" * 250 for i in range(1100))]
        path = tiny.write(tmp_path / "x.gguf", {"a.words": words}, {"a": np.zeros(4, np.float32)})
        assert read_header(path).keys["a.words"] == words


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "0 bytes"),
        (b"GGUF", "4 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "web page"),
        (b"PK\x03\x04" + bytes(60), "torch checkpoint"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 62, 0), "tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 62), "keys"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 63) + bytes(40), "beyond its end"),
    ],
)
def test_what_is_no_gguf_is_called_by_its_name(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    assert says in refused(path)


def key(name: str, rest: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + rest


def tensor(name: str, dims: list[int], kind: int, offset: int) -> bytes:
    return key(name, struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset))


@pytest.mark.parametrize(
    ("keys", "tensors", "says"),
    [
        ([key("a", struct.pack("<I", 13))], [], "unknown type 13"),
        ([key("a", struct.pack("<IIQ", 9, 9, 1))], [], "array of the unknown type 9"),
        ([key("a", struct.pack("<IIQ", 9, 8, 1 << 60))], [], "strings"),
        ([key("a", struct.pack("<IIQ", 9, 10, 1 << 60))], [], "numbers"),
        ([key("a", struct.pack("<IB", 0, 1)), key("a", struct.pack("<IB", 0, 1))], [], "twice"),
        ([key("", struct.pack("<IB", 0, 1))], [], "no name"),
        ([key("general.alignment", struct.pack("<II", 4, 24))], [], "power of two"),
        ([key("general.alignment", struct.pack("<II", 4, 0))], [], "power of two"),
        ([key("general.alignment", struct.pack("<Ii", 5, 32))], [], "power of two"),
        ([], [tensor("a", [4], 0, 0), tensor("a", [4], 0, 32)], "twice"),
        ([], [tensor("a", [1] * 5, 0, 0)], "5 dimensions"),
        ([], [tensor("a", [0, 4], 0, 0)], "shape [4, 0]"),
        ([], [tensor("a", [1 << 40, 1 << 40], 0, 0)], "shape"),
        ([], [tensor("a", [4], 4, 0)], "unknown type 4"),
        ([], [tensor("a", [100], 2, 0)], "rows of 100"),
        ([], [tensor("a", [4], 0, 1 << 63)], "cut off"),
        ([], [tensor("a\x1b[2J", [1 << 20], 0, 0)], "␛[2J"),
    ],
)
def test_a_lying_header_is_refused(tmp_path: Path, keys: list[bytes], tensors: list[bytes], says: str) -> None:
    path = tmp_path / "x.gguf"
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + b"".join(tensors)
    path.write_bytes(head + bytes(4096))
    assert says in refused(path)


def test_a_folder_a_fifo_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    refused(tmp_path)
    refused(tmp_path / "fifo")
    assert "No such file" in refused(tmp_path / "missing.gguf")


def test_every_type_has_the_block_that_ggml_gives_it() -> None:
    for kind in TYPES_BY_NAME.values():
        assert (library().ggml_blck_size(kind.id), library().ggml_type_size(kind.id)) == (kind.block, kind.nbytes), kind


def test_a_file_cut_off_anywhere_is_refused(good: Path, tmp_path: Path) -> None:
    raw = good.read_bytes()
    path = tmp_path / "cut.gguf"
    last = max(t.offset + t.nbytes for t in read_header(good).tensors.values())
    for length in [*range(0, 700, 7), *range(700, last, 997), last - 1]:
        path.write_bytes(raw[:length])
        refused(path)


@settings(max_examples=runs(400), derandomize=True, deadline=None, database=None)
@given(st.data())
def test_whatever_is_changed_ends_in_a_header_or_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = bytearray(_small())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 8))
        with_ = data.draw(
            st.one_of(
                st.binary(min_size=1, max_size=8),
                st.sampled_from([struct.pack("<Q", n) for n in (0, 1, 1 << 31, 1 << 32, 1 << 62, (1 << 64) - 1)]),
            )
        )
        raw[at : at + len(with_)] = with_
    del raw[data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw)))) :]
    path = tmp_path_factory.getbasetemp() / "mutant.gguf"
    path.write_bytes(raw)
    tracemalloc.start()
    complaint = ""
    try:
        placed = [(t.offset, t.offset + t.nbytes) for t in read_header(path).tensors.values()]
    except GGUFError as e:
        placed, complaint = [], str(e)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert all(start > 0 and end <= len(raw) for start, end in placed)
    assert "\n" not in complaint
    assert peak < 8_000_000


_SMALL: bytes = b""


def _small() -> bytes:
    """A file of about a kilobyte with a key of every kind, so that most changes hit something."""
    global _SMALL
    if not _SMALL:
        keys = {
            "a.u8": np.uint8(1), "a.i64": np.int64(-1), "a.f64": np.float64(0.5), "a.yes": True, "a.word": "wörd",
            "a.words": ["x", "", "yz"], "a.numbers": [1, 2, 3], "a.floats": [0.5, 1.5], "a.bools": [True, False],
        }  # fmt: skip
        layout = lay_out(
            keys, [TensorSpec("t.weight", (2, 32), TYPES_BY_NAME["Q8_0"]), TensorSpec("b", (4,), TYPES_BY_NAME["F32"])]
        )
        _SMALL = layout.header + bytes(layout.size - len(layout.header))
    return _SMALL
