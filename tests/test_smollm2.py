"""A real model, from the package to a GGUF and back: what the rebuilt checkpoint says is what the original file says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from agent.gguf.reader import read_header
from pipeline import quantize
from pipeline.sources.checkpoint import read_safetensors_header
from tests.fixtures import smollm2
from tests.fixtures.shared import shared

pytestmark = pytest.mark.real

TEXT = (
    "The capital of France is Paris, a city on the river Seine. Water boils at 100 degrees Celsius at sea level. "
    "def add(a, b):\n    return a + b\n\nOnce upon a time there was a small robot who lived in a garden."
)


@pytest.fixture(scope="module")
def bf16() -> Path:
    def make(folder: Path) -> None:
        smollm2.rebuild(folder / "checkpoint")
        quantize(str(folder / "checkpoint"), "BF16", folder / "bf16.gguf", threads=1)

    return shared("smollm2-bf16", make) / "bf16.gguf"


def log_probabilities(path: Path, ids: list[int]) -> npt.NDArray[np.float64]:
    """[tokens, vocabulary], teacher-forced over ``ids``."""
    from llama_cpp import Llama

    llm = Llama(str(path), n_ctx=256, n_batch=256, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False)
    llm.eval(ids)
    logits = np.array(llm.scores[: len(ids)], dtype=np.float64)
    llm.close()
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def tokens(path: Path, text: str) -> list[int]:
    from llama_cpp import Llama

    llm = Llama(str(path), vocab_only=True, verbose=False)
    try:
        return list(llm.tokenize(text.encode(), add_bos=False, special=True))
    finally:
        llm.close()


def test_the_vocabulary_survives_the_round_trip(bf16: Path) -> None:
    """Keys that were spelled out as tokenizer.json and read back are the original's, one for one."""
    before, after = read_header(smollm2.original()).keys, read_header(bf16).keys
    for key in ("tokens", "merges"):
        assert after[f"tokenizer.ggml.{key}"] == before[f"tokenizer.ggml.{key}"]
    for key in ("model", "pre", "bos_token_id", "eos_token_id", "padding_token_id"):
        assert after[f"tokenizer.ggml.{key}"] == before[f"tokenizer.ggml.{key}"], key
    assert np.array_equal(after["tokenizer.ggml.token_type"], before["tokenizer.ggml.token_type"])
    assert after["tokenizer.chat_template"] == before["tokenizer.chat_template"]
    text = "<|im_start|>user\nIt's 12345 ünïcödé 🌱 tokens<|im_end|>\n"
    assert tokens(bf16, text) == tokens(smollm2.original(), text)


def test_the_rebuilt_model_says_what_the_original_says(bf16: Path) -> None:
    """The weights are the same; what is left is llama.cpp's own rounding of activations in front of Q4_1 and BF16 weights."""
    ids = tokens(bf16, TEXT)
    before, after = log_probabilities(smollm2.original(), ids), log_probabilities(bf16, ids)
    divergence = (np.exp(before) * (before - after)).sum(axis=1)
    agreement = (before.argmax(axis=1) == after.argmax(axis=1)).mean()
    assert divergence.mean() < 0.01
    assert agreement > 0.9
    paris = tokens(bf16, " Paris")[0]
    assert after[ids.index(paris) - 1].argmax() == paris


def test_shards_hold_every_tensor_once_and_dither_leaves_the_grid(tmp_path: Path) -> None:
    plain = smollm2.rebuild(tmp_path / "plain", dtype="F16", max_shard_bytes=20_000_000, layers=4)
    index = json.loads((plain / "model.safetensors.index.json").read_text())["weight_map"]
    files = sorted(plain.glob("*.safetensors"))
    held = {name: file.name for file in files for name in read_safetensors_header(file)}
    assert len(files) == 3
    assert held == index
    dithered = smollm2.rebuild(tmp_path / "dithered", dtype="F16", max_shard_bytes=20_000_000, layers=4, dither=True, seed=1)
    name = "model.layers.3.mlp.up_proj.weight"
    rows = []
    for folder in (plain, dithered):
        info = read_safetensors_header(folder / index[name])[name]
        raw = np.fromfile(folder / index[name], dtype="<f2", count=info.row_length, offset=info.offset)
        rows.append(raw.reshape(-1, 32).astype(np.float64))
    levels = [max(len(np.unique(block)) for block in matrix) for matrix in rows]
    assert levels[0] <= 16
    assert levels[1] > 16
    step = (rows[0].max(axis=1) - rows[0].min(axis=1)) / 15
    assert (np.abs(rows[1] - rows[0]) <= 0.51 * step.max()).all()
