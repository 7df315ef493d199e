"""The smallest GGUF that llama.cpp runs, to be broken in one place at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.ggml_types import F32, GGMLType
from pipeline.gguf_file import Entry, lay_out

WIDTH, FFN, HEADS = 32, 64, 2
TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz"]
TYPES = [2, 3, 3, *[6] * 256, *[1] * 27]

Weights = dict[str, npt.NDArray[np.float32]]


def llama_keys(**changes: Any) -> dict[str, Any]:
    """The keys of a one-block llama. ``changes`` sets others; double underscores stand for dots, None takes a key away."""
    keys: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "llama.block_count": 1,
        "llama.context_length": 64,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": FFN,
        "llama.attention.head_count": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": list(TOKENS),
        "tokenizer.ggml.scores": [0.0] * len(TOKENS),
        "tokenizer.ggml.token_type": list(TYPES),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            keys.pop(key, None)
        else:
            keys[key] = value
    return keys


def llama_weights(vocabulary: int = len(TOKENS)) -> Weights:
    """Random weights that fit ``llama_keys``."""
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd.weight": (vocabulary, WIDTH),
        "blk.0.attn_norm.weight": (WIDTH,),
        "blk.0.attn_q.weight": (WIDTH, WIDTH),
        "blk.0.attn_k.weight": (WIDTH, WIDTH),
        "blk.0.attn_v.weight": (WIDTH, WIDTH),
        "blk.0.attn_output.weight": (WIDTH, WIDTH),
        "blk.0.ffn_norm.weight": (WIDTH,),
        "blk.0.ffn_gate.weight": (FFN, WIDTH),
        "blk.0.ffn_down.weight": (WIDTH, FFN),
        "blk.0.ffn_up.weight": (FFN, WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    return {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def write(
    path: Path,
    keys: Mapping[str, Any],
    tensors: Mapping[str, npt.NDArray[Any]],
    kinds: Mapping[str, tuple[GGMLType, tuple[int, ...]]] | None = None,
) -> Path:
    """A GGUF of these keys and arrays; ``kinds`` gives type and shape of those that are not float32 already."""
    entries = []
    for name, array in tensors.items():
        kind, shape = (kinds or {}).get(name, (F32, array.shape))
        entries.append(Entry(name, shape, kind))
    layout = lay_out(dict(keys), entries)
    out = bytearray(layout.size)
    out[: len(layout.header)] = layout.header
    for offset, array in zip(layout.offsets, tensors.values(), strict=True):
        raw = array.tobytes()
        out[offset : offset + len(raw)] = raw
    path.write_bytes(out)
    return path


def llama(path: Path, **changes: Any) -> Path:
    """A tiny llama whose keys are changed as ``llama_keys`` says."""
    keys = llama_keys(**changes)
    return write(path, keys, llama_weights(len(keys.get("tokenizer.ggml.tokens", TOKENS))))
