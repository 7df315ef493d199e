"""StableLM 2 and 3B: LayerNorm, heads rotated in part; the 12B has a norm for each head and one for both halves of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gguf import Keys

from pipeline.architectures.shared.decoder import ATTENTION, MLP, PRE_NORMS, TRUNK, OwnHead, bias_names, sizes
from pipeline.architectures.shared.plain import LayerNormed
from pipeline.architectures.shared.tensor import Tensor
from pipeline.format.gguf_file import Value

_BIASED = {theirs: ours for theirs, ours in (TRUNK | PRE_NORMS | ATTENTION).items() if "norm" in ours or ".attn_" in ours}
_FFN_NORM = ("ffn_norm.weight", "ffn_norm.bias")
_HEAD_NORMS = ("attn_q_norm.weight", "attn_k_norm.weight")


class StableLm(OwnHead, LayerNormed):
    gguf = "stablelm"
    defaults = sizes(2560, 6912, 32, 32, 32, 4096, layer_norm_eps=1e-5, partial_rotary_factor=0.25)
    names = TRUNK | PRE_NORMS | ATTENTION | MLP | bias_names(_BIASED) | {
        "model.layers.{i}.self_attn.q_layernorm.norms.{e}.weight": "blk.{i}.attn_q_norm.weight",
        "model.layers.{i}.self_attn.k_layernorm.norms.{e}.weight": "blk.{i}.attn_k_norm.weight",
    }  # fmt: skip
    optional = LayerNormed.optional | {
        *bias_names(ATTENTION).values(), *(f"blk.{{i}}.{part}" for part in (*_FFN_NORM, *_HEAD_NORMS)),
    }  # fmt: skip
    bias_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {"use_qkv_bias": ("attn_q", "attn_k", "attn_v")}
    partial_rope = True

    def keys(self) -> dict[str, Value]:
        return super().keys() | {Keys.LLM.USE_PARALLEL_RESIDUAL: self.flag("use_parallel_residual")}

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        norms = (("attn_q_norm", self.n_heads), ("attn_k_norm", self.n_kv_heads))
        return super().expected_shapes() | {
            f"blk.{{i}}.{part}.weight": (heads, self.head_dim) if heads > 1 else (self.head_dim,) for part, heads in norms
        }

    def mapped(self) -> list[Tensor]:
        tensors = super().mapped()
        n = self.n_layers
        self.check_kinds(tensors, [not self.flag("use_parallel_residual")] * n, _FFN_NORM, ())
        self.check_kinds(tensors, [self.flag("qk_layernorm")] * n, _HEAD_NORMS, ())
        return tensors
