"""Seed-OSS: Llama with biases on queries, keys and values, and another GGUF name for the norm before the MLP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pipeline.architectures.qwen2 import Qwen2
from pipeline.architectures.shared.decoder import Decoder, sizes


class SeedOss(Decoder):
    gguf = "seed_oss"
    defaults = sizes(4096, 27648, 64, 80, 8, 524288, head_dim=128, attention_bias=True)
    names = Qwen2.names | {"model.layers.{i}.post_attention_layernorm.weight": "blk.{i}.post_attention_norm.weight"}
    bias_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {"attention_bias": ("attn_q", "attn_k", "attn_v")}

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        return super().expected_shapes() | {"blk.{i}.post_attention_norm.weight": (self.integer("hidden_size"),)}
