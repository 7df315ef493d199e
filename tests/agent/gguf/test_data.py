"""The look at the weights: whether they are numbers is what ggml says too, and the place is named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from agent.errors import GGUFError
from agent.gguf.check import check
from agent.gguf.data import check_data, finite
from agent.gguf.reader import read_header
from agent.gguf.types import TYPES_BY_NAME, GGMLType
from pipeline.format.ggml import library
from tests.fixtures import tiny

MODELS = [kind for kind in TYPES_BY_NAME.values() if kind.name != "Q8_1"]  # Q8_1 is for products on the way, and in no file
ALWAYS_SOUND = {"I8", "I16", "I32", "I64", "NVFP4"}
SLAB = 1 << 22  # bytes that are looked at together


def ggmls_verdict(kind: GGMLType, data: np.ndarray) -> bool:
    return bool(library().ggml_validate_row_data(kind.id, data.ctypes.data, data.nbytes))


@pytest.mark.parametrize("kind", MODELS, ids=lambda t: t.name)
def test_the_verdict_on_noise_is_ggmls_own(kind: GGMLType, capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(kind.id)
    verdicts = set()
    for _ in range(100):
        # 16 blocks of noise, most of their bytes made small, so that about as many groups are sound as not.
        data = rng.integers(0, 256, (16, kind.nbytes), dtype=np.uint8)
        data[rng.random(data.shape) < 0.2] = rng.choice(np.array([0x7C, 0x7F, 0xFF, 0x80], np.uint8))
        data = data[: rng.integers(1, 16)]
        expected = ggmls_verdict(kind, data)
        assert finite(data, kind) == expected
        verdicts.add(expected)
    capfd.readouterr()
    assert verdicts == ({True} if kind.name in ALWAYS_SOUND else {True, False})


@pytest.mark.parametrize("kind", MODELS, ids=lambda t: t.name)
def test_the_verdict_on_two_odd_bytes_anywhere_in_a_block_is_ggmls_own(kind: GGMLType, capfd: pytest.CaptureFixture[str]) -> None:
    for at in range(kind.nbytes):
        for low, high in ((0x00, 0x7C), (0xFF, 0x7B), (0x80, 0x7F), (0x7F, 0x7F), (0xFF, 0xFF), (0x01, 0xFC), (0xF0, 0xF0)):
            data = np.zeros((3, kind.nbytes), np.uint8)
            data.reshape(-1)[kind.nbytes + at : kind.nbytes + at + 2] = low, high
            assert finite(data, kind) == ggmls_verdict(kind, data), (at, low, high)
    capfd.readouterr()


@pytest.mark.parametrize(("name", "element"), [("F32", np.float32), ("F16", np.float16), ("F64", np.float64)])
def test_a_plain_number_is_sound_up_to_the_largest(name: str, element: type[np.floating]) -> None:
    """What does not fit a float32 is infinite to llama.cpp, also when the file holds it as a float64."""
    limits = np.finfo(element if name != "F64" else np.float32)
    kind = TYPES_BY_NAME[name]
    sound = np.array([limits.max, -limits.max, limits.tiny, limits.smallest_subnormal, 0.0, -0.0, 1.0], element)
    assert finite(sound.view(np.uint8), kind)
    for bad in (np.inf, -np.inf, np.nan, *((1e300, -3.5e38) if name == "F64" else ())):
        for at in range(sound.size):
            odd = sound.copy()
            odd[at] = bad
            assert not finite(odd.view(np.uint8), kind)


def test_what_no_model_is_made_of_is_unsound() -> None:
    assert not finite(np.zeros(TYPES_BY_NAME["Q8_1"].nbytes, np.uint8), TYPES_BY_NAME["Q8_1"])


@pytest.fixture(scope="module", params=["F32", "BF16", "Q4_K", "Q8_0"])
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GGMLType, int]:
    """A file with a tensor of a little more than two slabs between others, its type, and its number of blocks."""
    kind = TYPES_BY_NAME[request.param]
    blocks = 2 * (SLAB // kind.nbytes) + 5
    raw = np.zeros(blocks * kind.nbytes, np.uint8)
    weights = {"a.weight": np.ones(4, np.float32), "extra.weight": raw, "z.weight": np.ones(4, np.float32)}
    path = tmp_path_factory.mktemp("large") / "x.gguf"
    return tiny.write(path, tiny.llama_keys(), weights, {"extra.weight": (kind, (blocks, kind.block))}), kind, blocks


@pytest.mark.parametrize("place", ["first", "end of a slab", "start of a slab", "last"])
def test_a_block_that_is_no_number_is_found_wherever_it_lies(large: tuple[Path, GGMLType, int], place: str) -> None:
    path, kind, blocks = large
    together = SLAB // kind.nbytes
    block = {"first": 0, "end of a slab": together - 1, "start of a slab": together, "last": blocks - 1}[place]
    header = read_header(path)
    check_data(path, header)
    at = header.tensors["extra.weight"].offset + block * kind.nbytes
    with path.open("r+b") as f:
        was = os.pread(f.fileno(), 4, at)
        os.pwrite(f.fileno(), b"\xff" * 4, at)
        with pytest.raises(GGUFError) as refused:
            check_data(path, header)
        os.pwrite(f.fileno(), was, at)
    where = block // together * together * kind.block
    assert str(refused.value) == (
        f"{path} must not be loaded: tensor 'extra.weight' holds NaN or infinity (at or after weight {where}); "
        "get or make another one"
    )


@pytest.mark.parametrize("name", ["a.weight", "b.weight", "z.weight"])
def test_every_tensor_is_looked_at_and_nothing_beside_them(tmp_path: Path, name: str) -> None:
    weights = {**tiny.llama_weights(), **{n: np.ones(3, np.float32) for n in ("a.weight", "b.weight", "z.weight")}}
    path = tiny.write(tmp_path / "x.gguf", tiny.llama_keys(), weights)
    entry, raw = read_header(path).tensors[name], bytearray(path.read_bytes())
    raw[entry.offset + entry.nbytes : entry.offset + 16] = b"\xff" * 4  # its padding
    path.write_bytes(raw)
    check(path, data=True)
    raw[entry.offset + 8 : entry.offset + 12] = b"\xff" * 4
    path.write_bytes(raw)
    check(path)
    with pytest.raises(GGUFError, match=f"tensor '{name}' holds NaN or infinity .at or after weight 0."):
        check(path, data=True)


def test_a_file_that_shrinks_or_goes_while_it_is_read_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tiny.llama(tmp_path / "x.gguf")
    header = read_header(path)
    last = list(header.tensors.values())[-1]
    for size in (last.offset + last.nbytes - 1, last.offset, header.data_offset):
        os.truncate(path, size)
        with pytest.raises(GGUFError, match=r"x\.gguf became shorter while it was read; make or download it again$"):
            check_data(path, header)
    path.unlink()
    with pytest.raises(GGUFError, match=r"cannot read .*x\.gguf: No such file or directory$"):
        check_data(path, header)
