"""GLM-4-0414 (9B, 32B, Z1): GLM with a norm after each part too."""

from __future__ import annotations

from pipeline.architectures.glm import Glm


class Glm4(Glm):
    gguf = "glm4"
    names = Glm.names | {
        "model.layers.{i}.post_self_attn_layernorm.weight": "blk.{i}.post_attention_norm.weight",
        "model.layers.{i}.post_mlp_layernorm.weight": "blk.{i}.post_ffw_norm.weight",
    }
    square = False

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d = self.integer("hidden_size")
        return super().expected_shapes() | {"blk.{i}.post_attention_norm.weight": (d,), "blk.{i}.post_ffw_norm.weight": (d,)}
