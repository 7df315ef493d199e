"""OLMo 2: norms after each part instead of before it, and over all queries and all keys of a token."""

from __future__ import annotations

from pipeline.architectures.shared.decoder import ATTENTION, MLP, QK_NORMS, TRUNK, OwnHead, sizes


class Olmo2(OwnHead):
    gguf = "olmo2"
    defaults = sizes(4096, 11008, 32, 32, None, 2048, rms_norm_eps=1e-5)
    names = TRUNK | ATTENTION | QK_NORMS | MLP | {
        "model.layers.{i}.post_attention_layernorm.weight": "blk.{i}.post_attention_norm.weight",
        "model.layers.{i}.post_feedforward_layernorm.weight": "blk.{i}.post_ffw_norm.weight",
    }  # fmt: skip
    square = True

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d = self.integer("hidden_size")
        return super().expected_shapes() | {
            "blk.{i}.attn_q_norm.weight": (d,),
            "blk.{i}.attn_k_norm.weight": (self.n_kv_heads * self.head_dim,),
            "blk.{i}.post_attention_norm.weight": (d,),
            "blk.{i}.post_ffw_norm.weight": (d,),
        }
