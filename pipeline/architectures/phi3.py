"""Phi-3, Phi-3.5 and Phi-4-mini: fused projections, LongRoPE, and in Phi-4 heads that are rotated in part."""

from __future__ import annotations

from pipeline.architectures.shared.decoder import PRE_NORMS, TRUNK, Decoder, sizes


class Phi3(Decoder):
    gguf = "phi3"
    has_window = "always"
    defaults = sizes(3072, 8192, 32, 32, None, 4096, rms_norm_eps=1e-5, original_max_position_embeddings=4096)
    names = TRUNK | PRE_NORMS | {
        "model.layers.{i}.self_attn.qkv_proj.weight": "blk.{i}.attn_qkv.weight",
        "model.layers.{i}.self_attn.o_proj.weight": "blk.{i}.attn_output.weight",
        "model.layers.{i}.mlp.gate_up_proj.weight": "blk.{i}.ffn_up.weight",
        "model.layers.{i}.mlp.down_proj.weight": "blk.{i}.ffn_down.weight",
    }  # fmt: skip
    rope_kinds = frozenset({"default", "longrope"})
    partial_rope = True
    square = True

    def check(self) -> None:
        # Phi3Config takes "yarn" for an old name of LongRoPE.
        for key in ("rope_scaling", "rope_parameters"):
            p = self.hp.get(key)
            if isinstance(p, dict) and (p.get("rope_type") or p.get("type")) == "yarn":
                self.hp[key] = {**p, "rope_type": "longrope"}
        super().check()

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d, ff = self.integer("hidden_size"), self.integer("intermediate_size")
        return super().expected_shapes() | {
            "blk.{i}.attn_qkv.weight": ((self.n_heads + 2 * self.n_kv_heads) * self.head_dim, d),
            "blk.{i}.ffn_up.weight": (2 * ff, d),
        }
