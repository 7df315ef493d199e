"""Tiny models for evaluations: one, and others that differ from it a little."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.fixtures.tiny import llama_keys, llama_weights, write

N_CTX = 32
TEXTS = {"bees": "a bee is a small blue thing that hums " * 6, "hills": "over the hill and far away lies a lake " * 4}


def tiny(path: Path, noise: float = 0.0, seed: int = 1, **keys: object) -> Path:
    """The tiny llama with noise on its weights, which are large enough to make it sure of something."""
    rng = np.random.default_rng(seed)
    weights = llama_weights()
    for name, array in weights.items():
        if "norm" in name:
            array[:] = 1.0
        array += rng.normal(0, noise, array.shape).astype(np.float32) if noise else 0
    weights["token_embd.weight"] *= 4
    return write(path, llama_keys(**keys), weights)
