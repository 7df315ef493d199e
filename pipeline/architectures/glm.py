"""GLM-4 9B (as transformers spells it) and GLM-Edge: a fused MLP, biases on queries, keys and values, half heads rotated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pipeline.architectures.shared.decoder import ATTENTION, PRE_NORMS, TRUNK, Decoder, bias_names, sizes


class Glm(Decoder):
    """transformers turns neighbouring dimensions as llama.cpp does, so no rows are reordered."""

    gguf = "chatglm"
    defaults = sizes(
        4096, 13696, 40, 32, 2, 131072, rms_norm_eps=1.5625e-7, head_dim=128, partial_rotary_factor=0.5, attention_bias=True
    )
    names = TRUNK | PRE_NORMS | ATTENTION | bias_names({k: v for k, v in ATTENTION.items() if "o_proj" not in k}) | {
        "model.layers.{i}.mlp.gate_up_proj.weight": "blk.{i}.ffn_up.weight",
        "model.layers.{i}.mlp.down_proj.weight": "blk.{i}.ffn_down.weight",
    }  # fmt: skip
    partial_rope = True
    square = True
    bias_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {"attention_bias": ("attn_q", "attn_k", "attn_v")}

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        return super().expected_shapes() | {"blk.{i}.ffn_up.weight": (2 * self.mlp_width, self.integer("hidden_size"))}
