"""A one-block llama in NumPy: what each of its weights is multiplied with, computed without llama.cpp."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.fixtures.tiny import FFN, HEADS, WIDTH, Weights, llama_keys, llama_weights, write

Array = npt.NDArray[np.float64]
EXPERTS, USED = 4, 2


def experts_llama(path: Path) -> Weights:
    """A tiny Mixtral: the llama of ``tests/fixtures/tiny.py`` with experts in the place of its feed-forward part."""
    keys = llama_keys(llama__expert_count=EXPERTS, llama__expert_used_count=USED)
    weights = {name: w for name, w in llama_weights().items() if "ffn_" not in name or "norm" in name}
    rng = np.random.default_rng(1)
    shapes = {
        "ffn_gate_inp": (EXPERTS, WIDTH), "ffn_gate_exps": (EXPERTS, FFN, WIDTH), "ffn_up_exps": (EXPERTS, FFN, WIDTH),
        "ffn_down_exps": (EXPERTS, WIDTH, FFN),
    }  # fmt: skip
    for name, shape in shapes.items():
        weights[f"blk.0.{name}.weight"] = rng.normal(0, 0.3, shape).astype(np.float32)
    write(path, keys, weights)
    return weights


def _norm(x: Array, weight: npt.NDArray[np.float32]) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight


def _rope(x: Array) -> Array:
    """[tokens, heads, size]: neighbours turn together."""
    half = x.shape[-1] // 2
    angle = np.arange(len(x))[:, None] * 10000.0 ** (-np.arange(half) / half)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
    return out


def _silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def activations(weights: Weights, ids: list[int]) -> dict[str, list[Array]]:
    """Short name of a weight -> what it sees, [tokens, columns], one for each of its matrices."""
    w = {name.removeprefix("blk.0.").removesuffix(".weight"): value for name, value in weights.items()}
    x: Array = w["token_embd"][ids].astype(np.float64)
    seen: dict[str, list[Array]] = {}
    h = _norm(x, w["attn_norm"])
    for name in ("attn_q", "attn_k", "attn_v"):
        seen[name] = [h]
    q, k, v = ((h @ w[f"attn_{part}"].T).reshape(len(ids), HEADS, -1) for part in "qkv")
    scores = np.einsum("ihd,jhd->hij", _rope(q), _rope(k)) / np.sqrt(q.shape[-1])
    scores += np.where(np.tri(len(ids)) > 0, 0, -np.inf)
    seen["attn_output"] = [np.einsum("hij,jhd->ihd", _softmax(scores), v).reshape(len(ids), -1)]
    x = x + seen["attn_output"][0] @ w["attn_output"].T
    h = _norm(x, w["ffn_norm"])
    x = x + (_experts(w, h, seen) if "ffn_gate_inp" in w else _dense(w, h, seen))
    seen["head"] = [_norm(x, w["output_norm"])]
    return seen


def _dense(w: Weights, h: Array, seen: dict[str, list[Array]]) -> Array:
    seen["ffn_gate"] = seen["ffn_up"] = [h]
    seen["ffn_down"] = [_silu(h @ w["ffn_gate"].T) * (h @ w["ffn_up"].T)]
    return seen["ffn_down"][0] @ w["ffn_down"].T


def _experts(w: Weights, h: Array, seen: dict[str, list[Array]]) -> Array:
    seen["ffn_gate_inp"] = [h]
    chance = _softmax(h @ w["ffn_gate_inp"].T)
    chosen = np.argsort(-chance, axis=-1)[:, :USED]
    share = np.zeros_like(chance)
    np.put_along_axis(share, chosen, np.take_along_axis(chance, chosen, -1), -1)
    share /= share.sum(-1, keepdims=True)
    out = np.zeros_like(h)
    for name in ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"):
        seen[name] = []
    for e in range(EXPERTS):
        rows = np.flatnonzero(share[:, e] > 0)
        inner = _silu(h[rows] @ w["ffn_gate_exps"][e].T) * (h[rows] @ w["ffn_up_exps"][e].T)
        seen["ffn_gate_exps"].append(h[rows])
        seen["ffn_up_exps"].append(h[rows])
        seen["ffn_down_exps"].append(inner)
        out[rows] += share[rows, e, None] * (inner @ w["ffn_down_exps"][e].T)
    return out
