"""A checkpoint with fewer rows, made here by hand, converts and says in llama.cpp what the whole one says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agent.gguf.reader import read_header
from pipeline.forward.process import ForwardProcess
from pipeline.prune.vocab.cut import cut_files
from pipeline.quantize import quantize
from pipeline.sources.source import open_source
from pipeline.text.held_out import domains
from tests.fixtures.random_llama import LlamaShape, config
from tests.fixtures.small_checkpoints import write_safetensors
from tests.fixtures.tokenizers import make_tokenizer

SHAPE = LlamaShape(64, 128, 2, 4, 2, 544)
TEXT = "The water was cold and the stone was dark. There is nothing that the other one would not have done with it.\n"
ROWS = ("model.embed_tokens.weight", "lm_head.weight")


def checkpoint(folder: Path) -> dict[str, np.ndarray]:
    make_tokenizer("smollm2", folder)
    (folder / "config.json").write_text(json.dumps(config(SHAPE)))
    random = np.random.default_rng(5)
    weights = {n: (random.standard_normal(shape) * 0.2).astype(np.float32) for n, shape in SHAPE.shapes().items()}
    weights |= {name: 1 + 0.1 * weight for name, weight in weights.items() if "norm" in name}
    write_safetensors(folder / "model.safetensors", weights)
    return weights


@pytest.mark.slow
def test_the_logits_of_kept_tokens_are_those_of_the_whole_model(tmp_path: Path) -> None:
    whole, small = tmp_path / "whole", tmp_path / "small"
    weights = checkpoint(whole)
    cut = cut_files(open_source(str(whole)).files, config(SHAPE), SHAPE.vocab, {"mine": TEXT}, 416, held_out=domains())
    kept = list(cut.kept)
    assert len(kept) == 416
    assert {growth.name for growth in cut.held_out} >= {"en", "de", "zh", "code"}
    small.mkdir()
    for path in whole.iterdir():
        (small / path.name).write_bytes(path.read_bytes())
    for name, content in cut.files.items():
        (small / name).write_bytes(content)
    (small / "config.json").write_text(json.dumps({**config(SHAPE), **cut.config}))
    write_safetensors(small / "model.safetensors", {n: w[kept] if n in ROWS else w for n, w in weights.items()})
    quantize(str(whole), "F32", tmp_path / "whole.gguf")
    quantize(str(small), "F32", tmp_path / "small.gguf")
    keys = [read_header(tmp_path / f"{name}.gguf").keys for name in ("whole", "small")]
    assert keys[0]["tokenizer.ggml.pre"] == keys[1]["tokenizer.ggml.pre"] == "smollm"
    with (
        ForwardProcess(tmp_path / "whole.gguf", n_ctx=64, n_outputs=64, threads=1) as before,
        ForwardProcess(tmp_path / "small.gguf", n_ctx=64, n_outputs=64, threads=1) as after,
    ):
        ids = after.tokenize(TEXT)
        assert [kept[i] for i in ids] == before.tokenize(TEXT)
        theirs = before.logits([kept[i] for i in ids])[:, kept]
        np.testing.assert_allclose(after.logits(list(ids)), theirs, atol=2e-5)
