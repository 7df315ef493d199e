"""What was made of blocks comes back to its blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.gguf.reader import read_header
from agent.gguf.types import TYPES_BY_NAME
from pipeline.format import ggml
from pipeline.format.ggml import Bytes, Floats
from pipeline.rounding import on_grid as on_grid_module
from pipeline.rounding.blocks import FORMATS
from pipeline.rounding.on_grid import GridEncoder, exact, looks_on_grid, to_bf16
from tests.fixtures.smollm2 import original

ROWS = 16


def rounded(name: str, seed: int = 0, columns: int = 256) -> tuple[Bytes, Floats]:
    """Bytes of a type, and the weights that they hold."""
    weights = np.random.default_rng(seed).standard_normal((ROWS, columns)).astype(np.float32) * np.float32(0.05)
    weights[3] = 0
    raw = ggml.quantize(weights, TYPES_BY_NAME[name])
    return raw, ggml.to_float(raw, TYPES_BY_NAME[name], columns)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_a_dequantized_tensor_comes_back(name: str) -> None:
    form = FORMATS[name]
    raw, weights = rounded(name)
    same = weights.astype(np.float16).astype(np.float32)
    # BF16 has too few bits to tell neighbouring scales apart: the weights are the same, the bytes of some blocks are not.
    for stored, share in ((weights, 1.0), (same, 0.99), (to_bf16(weights), 0.8 if form.offset else 0.3)):
        back = exact(stored, form)
        assert back is not None
        again = ggml.to_float(back, form.kind, 256)
        assert np.array_equal(again if share == 1 else again.astype(np.float16) if share > 0.9 else to_bf16(again), stored)
        blocks = (back.reshape(-1, form.kind.nbytes) == raw.reshape(-1, form.kind.nbytes)).all(axis=1)
        assert blocks.mean() >= share


@pytest.mark.parametrize(("inner", "outer"), [("Q4_0", "Q5_0"), ("Q4_0", "Q8_0"), ("Q4_1", "Q5_1")])
def test_a_finer_type_holds_a_coarser_grid(inner: str, outer: str) -> None:
    weights = to_bf16(rounded(inner)[1])
    raw = exact(weights, FORMATS[outer])
    assert raw is not None
    assert np.array_equal(to_bf16(ggml.to_float(raw, TYPES_BY_NAME[outer], 256)), weights)


@pytest.mark.parametrize("name", FORMATS)
def test_other_weights_are_on_no_grid(name: str) -> None:
    weights = to_bf16(np.random.default_rng(1).standard_normal((ROWS, 256)).astype(np.float32))
    assert exact(weights, FORMATS[name]) is None
    weights[:] = 0
    assert not looks_on_grid(weights, FORMATS[name])


def test_one_weight_that_is_off_the_grid_is_noticed() -> None:
    weights = to_bf16(rounded("Q4_0")[1])
    weights[5, 7] *= np.float32(1.0625)
    assert exact(weights, FORMATS["Q4_0"]) is None


def test_after_some_tensors_of_no_grid_none_is_looked_at() -> None:
    encoder, looks = GridEncoder(), 0

    def look() -> Floats:
        nonlocal looks
        looks += 1
        return np.random.default_rng(looks).standard_normal((4, 64)).astype(np.float32)

    assert not any(encoder.wants("t", TYPES_BY_NAME["Q4_0"], look) for _ in range(50))
    assert looks < 10


def test_the_real_model_lies_on_the_grid_that_it_came_from() -> None:
    path = original()
    tensor = read_header(path).tensors["blk.3.attn_k.weight"]
    data = np.memmap(path, np.uint8, mode="r")[tensor.offset : tensor.offset + tensor.nbytes]
    raw = np.array(data).reshape(tensor.shape[0], -1)[:ROWS]
    weights = ggml.to_float(raw, tensor.type, tensor.shape[1])
    assert tensor.type.name == "Q4_1"
    found = exact(weights, FORMATS["Q4_1"])
    assert found is not None
    assert np.array_equal(found, raw), "from F32, to the bit"
    found = exact(to_bf16(weights), FORMATS["Q4_1"])
    assert found is not None
    assert np.array_equal(to_bf16(ggml.to_float(found, tensor.type, tensor.shape[1])), to_bf16(weights))
    same = (found.reshape(-1, 20) == raw.reshape(-1, 20)).all(axis=1).mean()
    assert same > 0.85, "BF16 has too few bits to tell the scales of the other blocks apart"


def test_quantize_keeps_a_grid(tmp_path: Path) -> None:
    """Without any option: a model trained on a Q4_0 grid is not rounded a second time."""
    from pipeline import quantize
    from tests.fixtures.tiny import llama_keys, llama_weights, write

    kind = TYPES_BY_NAME["Q4_0"]
    weights = {
        n: w if w.ndim == 1 else ggml.to_float(ggml.quantize(w, kind), kind, w.shape[1]) for n, w in llama_weights().items()
    }
    source = tmp_path / "source.gguf"
    write(source, llama_keys(), weights)
    made = quantize(str(source), "Q4_0", tmp_path / "made.gguf", pure=True)
    grid = [t for t in made.rounding if t.method == "grid"]
    assert len(grid) == 8
    assert any("lie on a Q4_0 grid" in note for note in made.notes)
    header = read_header(made.path)
    content = np.memmap(made.path, np.uint8, mode="r")
    for one in grid:
        t = header.tensors[one.tensor]
        raw = np.array(content[t.offset : t.offset + t.nbytes]).reshape(t.shape[0], -1)
        assert np.array_equal(ggml.to_float(raw, kind, t.shape[1]), weights[one.tensor])


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1"])
def test_usual_weights_are_known_by_their_many_values(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every plain quantization looks at a few tensors, and must not search for a grid in them."""
    rows = np.random.default_rng(1).normal(0, 0.02, (8, 64)).astype(np.float32)
    monkeypatch.delattr(on_grid_module, "_search")
    assert not looks_on_grid(rows, FORMATS[kind])
