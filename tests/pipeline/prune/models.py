"""Tiny checkpoints with what llama.cpp measured on them, and their logits as transformers computes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import quantize
from pipeline.calibrate.collect import collect
from pipeline.forward.process import ForwardProcess
from pipeline.prune.outcome import Pruned
from pipeline.prune.prune import prune
from tests.fixtures.checkpoints import is_encoder, save
from tests.fixtures.shared import shared
from tests.fixtures.tokenizers import make_tokenizer

IDS = [7, 300, 12, 45, 411, 99, 7, 208, 350, 61, 17, 18, 400, 222, 5, 90]


def tiny(case: str) -> Path:
    """A folder with the checkpoint ``hf``, its GGUF ``model.gguf`` and ``statistics`` over some random text."""

    def make(folder: Path) -> None:
        save(case, folder / "hf")
        make_tokenizer("bert-uncased" if is_encoder(case) else "smollm2", folder / "hf", 512)
        (folder / "hf" / "README.md").write_text("---\nlicense: mit\nbase_model: someone/parent-1B\nlanguage: en\n---\n# Tiny\n")
        quantize(str(folder / "hf"), "F32", folder / "model.gguf", threads=1)
        windows = np.random.default_rng(5).integers(5, 500, (16, 64)).tolist()
        collect(folder / "model.gguf", windows, folder / "statistics", hessians=True, threads=1)

    return shared(f"prune-{case}", make)


def pruned(case: str, out: Path, **wishes: Any) -> Pruned:
    """One of these, pruned; not compared with the original."""
    folder = tiny(case)
    return prune(str(folder / "hf"), out, statistics=folder / "statistics", check=False, threads=1, **wishes)


def load(folder: Path) -> Any:
    """The checkpoint in transformers."""
    from transformers import AutoModel, AutoModelForCausalLM

    kind = json.loads((folder / "config.json").read_bytes())["model_type"]
    auto = AutoModel if kind in ("bert", "distilbert") else AutoModelForCausalLM
    return auto.from_pretrained(folder, attn_implementation="eager", local_files_only=True).eval()


def outputs(model: Any) -> np.ndarray:
    """What it says to some tokens, logits or embeddings: float32 [tokens, ...]."""
    import torch

    with torch.no_grad():
        found = model(torch.tensor([IDS]))
    return np.asarray((found.logits if hasattr(found, "logits") else found.last_hidden_state)[0])


def llama_outputs(checkpoint: Path, folder: Path) -> np.ndarray:
    """The same in llama.cpp, of a GGUF that is made for it."""
    gguf = folder / "logits.gguf"
    quantize(str(checkpoint), "F32", gguf, threads=1)
    with ForwardProcess(gguf, n_ctx=64, n_outputs=64, threads=1) as process:
        return process.logits(IDS).copy()


def places(model: Any) -> tuple[str, str, str]:
    """Where the layers of a family lie, and what its feed-forward part reads and writes with."""
    kind = model.config.model_type
    if kind == "bert":
        return "encoder.layer", "intermediate.dense", "output.dense"
    if kind == "distilbert":
        return "transformer.layer", "ffn.lin1", "ffn.lin2"
    return "model.layers", "mlp.gate_up_proj" if kind == "phi3" else "mlp.up_proj", "mlp.down_proj"


def layers_of(model: Any) -> Any:
    return model.get_submodule(places(model)[0])


def found_rows(small: Any, large: Any) -> list[int]:
    """Which rows of one matrix the rows of another are."""
    same = (small[:, None] == large[None]).all(-1)
    assert same.any(-1).all()
    return [int(row) for row in same.int().argmax(-1)]  # the first of them
