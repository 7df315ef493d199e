"""Rotary position embeddings: what config.json says about them -> GGUF keys and factor tensors.

transformers 4 writes ``rope_theta`` beside ``rope_scaling {type | rope_type, ...}``; transformers 5 writes one
``rope_parameters``, nested by kind of layer where they differ. The formulas are those of transformers'
``modeling_rope_utils.py``; what llama.cpp makes of the keys stands in its ``llama-context.cpp`` and ``ggml_rope_ext``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import Keys

from agent.errors import CheckpointError, UnsupportedError
from agent.text import brief
from pipeline.architectures.shared.base import positive
from pipeline.architectures.shared.tensor import Tensor
from pipeline.format.gguf_file import Value

# "dynamic" changes nothing within the context length that a GGUF states.
_KINDS = ("default", "dynamic", "linear", "llama3", "longrope", "proportional", "yarn")
MAX_HEAD_DIM = 8192  # far above any model; a lie must not cost memory
_PLACE = "config.json: rope"


@dataclass(frozen=True, slots=True)
class Rope:
    """The rotation of one kind of layer.

    Attributes:
        kind: default, linear, dynamic, yarn, llama3, longrope or proportional.
        theta: base of the frequencies.
        rotated: dimensions of a head that are rotated (for "proportional": that are laid out for it, all of them).
        factor: how much longer the context became; 1 where it did not.
        original_context: tokens that the model was first trained on.
        attention_factor: what cos and sin are multiplied with.
        beta: YaRN's fast and slow bound, in rotations.
        divisors: what each frequency is divided by, float32 [rotated / 2]: one set, or for longrope short and long.
    """

    kind: str
    theta: float
    rotated: int
    factor: float
    original_context: int
    attention_factor: float
    beta: tuple[float, float]
    divisors: tuple[npt.NDArray[np.float32], ...] = ()


def rope_parameters(hp: Mapping[str, Any], layer: str = "full_attention") -> dict[str, Any]:
    """The entries for one kind of layer, whichever way config.json spells them. Raises CheckpointError."""
    found = hp.get("rope_scaling") or hp.get("rope_parameters") or {}
    if isinstance(found, dict) and any(key.endswith("_attention") for key in found):
        found = found.get(layer) or {}
    if not isinstance(found, dict):
        raise CheckpointError(f"{_PLACE}_parameters must be an object, not {type(found).__name__}")
    outer = {key: hp[key] for key in ("rope_theta", "partial_rotary_factor") if hp.get(key) is not None}
    return outer | found


def mrope_sections(hp: Mapping[str, Any], default: list[int]) -> list[int]:
    """How many rotated pairs go to time, height and width, as four numbers. For text all three are the position.

    Raises:
        CheckpointError: mrope_section is something else.
    """
    found = rope_parameters(hp).get("mrope_section") or default
    if not isinstance(found, list) or len(found) > 4 or not all(type(n) is int and 0 <= n < 4096 for n in found):
        raise CheckpointError("config.json: mrope_section must be up to four whole numbers")
    return [*found, 0, 0, 0, 0][:4]


def read_rope(hp: Mapping[str, Any], head_dim: int, layer: str = "full_attention") -> Rope:
    """Read the rotation of one kind of layer.

    Args:
        hp: the hyperparameters; ``rope_theta`` must be among them where the model family has a default.
        head_dim: dimensions of a head.
        layer: "full_attention" or "sliding_attention".

    Raises:
        UnsupportedError: a kind of RoPE, or an option of it, that llama.cpp does not compute.
        CheckpointError: a number that cannot be.
    """
    if not 1 <= head_dim <= MAX_HEAD_DIM:
        raise CheckpointError(f"config.json: heads of {head_dim} dimensions; at most {MAX_HEAD_DIM} are believed")
    p = rope_parameters(hp, layer)
    named = p.get("rope_type") or p.get("type") or "default"
    kind = {"su": "longrope", "mrope": "default"}.get(named, named) if isinstance(named, str) else named
    if kind not in _KINDS:
        raise UnsupportedError(f"{_PLACE} type {brief(named)} is not supported (supported: {', '.join(_KINDS)})")
    theta = positive("rope_theta", p.get("rope_theta", 10000.0))
    share = positive("partial_rotary_factor", p.get("partial_rotary_factor", 1.0))
    rotated = int(head_dim * share) if kind != "proportional" else head_dim
    if share > 1 or rotated < 2 or rotated % 2:
        raise CheckpointError(f"{_PLACE}: {share} of a head of {head_dim} is not an even number of dimensions to rotate")
    context = _whole(hp, "max_position_embeddings")
    original = context
    for holder in (hp, p):
        if kind in ("yarn", "llama3", "longrope") and holder.get("original_max_position_embeddings") is not None:
            original = _whole(holder, "original_max_position_embeddings")
            break
    factor = p.get("factor")
    if factor is not None:
        factor = positive("rope factor", factor)
    elif kind in ("yarn", "longrope"):
        factor = context / original
    elif kind in ("linear", "llama3"):
        raise CheckpointError(f"{_PLACE} type {kind} needs a factor")
    factor = factor or 1.0
    beta = (positive("beta_fast", p.get("beta_fast") or 32.0), positive("beta_slow", p.get("beta_slow") or 1.0))
    divisors: tuple[npt.NDArray[np.float32], ...] = ()
    attention = 1.0
    if kind == "yarn":
        attention = _yarn_attention(p, factor)
    elif kind == "longrope":
        attention = _longrope_attention(factor, original)
        divisors = (_factors(p, "short_factor", rotated // 2), _factors(p, "long_factor", rotated // 2))
    elif kind == "llama3":
        divisors = (_llama3_divisors(p, theta, rotated, factor, original),)
    elif kind == "proportional":
        turned = int(share * head_dim // 2)
        # A frequency divided by 1e30 is zero: those dimensions stay as they are.
        divisors = (np.array([factor] * turned + [1e30] * (rotated // 2 - turned), dtype=np.float32),)
    if kind in ("yarn", "longrope") and p.get("attention_factor") is not None:
        attention = positive("attention_factor", p["attention_factor"])
    return Rope(kind, theta, rotated, factor, original, attention, beta, divisors)


def rope_keys(hp: Mapping[str, Any], head_dim: int) -> dict[str, Value]:
    """The keys ``rope.*`` of the layers with full attention. Raises as ``read_rope``."""
    rope = read_rope(hp, head_dim)
    keys: dict[str, Value] = {Keys.Rope.DIMENSION_COUNT: rope.rotated, Keys.Rope.FREQ_BASE: rope.theta}
    if rope.kind == "linear":
        keys |= {Keys.Rope.SCALING_TYPE: "linear", Keys.Rope.SCALING_FACTOR: rope.factor}
    elif rope.kind == "yarn":
        # ggml multiplies cos and sin by 1 + 0.1 ln(factor) of its own accord.
        keys |= {
            Keys.Rope.SCALING_TYPE: "yarn",
            Keys.Rope.SCALING_FACTOR: rope.factor,
            Keys.Rope.SCALING_ORIG_CTX_LEN: rope.original_context,
            Keys.Rope.SCALING_ATTN_FACTOR: rope.attention_factor / (1 + 0.1 * math.log(rope.factor)),
            Keys.Rope.SCALING_YARN_BETA_FAST: rope.beta[0],
            Keys.Rope.SCALING_YARN_BETA_SLOW: rope.beta[1],
        }
    elif rope.kind == "longrope":
        keys |= {
            Keys.Rope.SCALING_TYPE: "longrope",
            Keys.Rope.SCALING_ORIG_CTX_LEN: rope.original_context,
            Keys.Rope.SCALING_ATTN_FACTOR: rope.attention_factor,
        }
    return keys


def rope_tensors(hp: Mapping[str, Any], head_dim: int) -> list[Tensor]:
    """Tensors of divisors that no checkpoint holds: none, ``rope_freqs``, or the short and the long ``rope_factors``."""
    divisors = read_rope(hp, head_dim).divisors
    names = ("rope_freqs.weight",) if len(divisors) == 1 else ("rope_factors_short.weight", "rope_factors_long.weight")
    return [Tensor(name, values.shape, f32=True, values=values) for name, values in zip(names, divisors, strict=False)]


def _whole(holder: Mapping[str, Any], name: str) -> int:
    value = positive(name, holder.get(name))
    if value != int(value) or value >= 2**31:
        raise CheckpointError(f"config.json: {name} is {value!r}; it must be a whole number")
    return int(value)


def _yarn_attention(p: Mapping[str, Any], factor: float) -> float:
    """Equation 22 of https://arxiv.org/abs/2309.00071, and the two-scale form of DeepSeek."""
    if p.get("truncate") is False:
        raise UnsupportedError(f"{_PLACE}: YaRN without truncated bounds (truncate false) is not what llama.cpp computes")
    if factor < 1:
        raise CheckpointError(f"{_PLACE}: a YaRN factor of {factor} would shorten the context")

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if p.get("mscale") and p.get("mscale_all_dim"):
        return scale(positive("mscale", p["mscale"])) / scale(positive("mscale_all_dim", p["mscale_all_dim"]))
    return scale(1.0)


def _longrope_attention(factor: float, original: int) -> float:
    """Section 3.2 of https://arxiv.org/abs/2402.13753."""
    return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0


def _factors(p: Mapping[str, Any], name: str, count: int) -> npt.NDArray[np.float32]:
    values = p.get(name)
    if not isinstance(values, list) or len(values) != count:
        raise CheckpointError(f"{_PLACE}: {name} must be a list of {count} numbers")
    return np.array([positive(name, v) for v in values], dtype=np.float32)


def _llama3_divisors(p: Mapping[str, Any], theta: float, rotated: int, factor: float, original: int) -> npt.NDArray[np.float32]:
    """Llama 3.1's rule: long waves are slowed by ``factor``, short ones kept, the rest in between.

    Source: https://github.com/meta-llama/llama-models/blob/main/models/llama3/model.py (``apply_scaling``).
    """
    low, high = positive("low_freq_factor", p.get("low_freq_factor")), positive("high_freq_factor", p.get("high_freq_factor"))
    if high <= low:
        raise CheckpointError(f"{_PLACE}: high_freq_factor {high} is not above low_freq_factor {low}")
    waves = 2 * np.pi * theta ** (np.arange(0, rotated, 2) / rotated)
    smooth = np.clip((original / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
