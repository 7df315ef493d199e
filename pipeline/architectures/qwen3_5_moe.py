"""Qwen3.5 MoE (text part): Qwen3.5 with experts in every layer, and one that all tokens share."""

from __future__ import annotations

from gguf import Keys

from pipeline.architectures.qwen3_5 import Qwen35
from pipeline.architectures.shared.decoder import MLP, sizes
from pipeline.architectures.shared.moe import EXPERTS, SHARED_EXPERT, QwenSharedExperts
from pipeline.format.gguf_file import Value


class Qwen35Moe(QwenSharedExperts, Qwen35):
    gguf = "qwen35moe"
    defaults = sizes(
        2048, 0, 40, 16, 2, 32768, head_dim=256, partial_rotary_factor=0.25, linear_conv_kernel_dim=4,
        linear_key_head_dim=128, linear_value_head_dim=128, linear_num_key_heads=16, linear_num_value_heads=32,
        moe_intermediate_size=512, shared_expert_intermediate_size=512, num_experts_per_tok=8, num_experts=256,
    ) | {"intermediate_size": None}  # fmt: skip
    names = {k: v for k, v in Qwen35.names.items() if k not in MLP} | EXPERTS | SHARED_EXPERT
    optional = Qwen35.optional | QwenSharedExperts.optional

    @property
    def mlp_width(self) -> int:
        return self.integer("intermediate_size", default=self.expert_width)

    def keys(self) -> dict[str, Value]:
        keys = super().keys()
        if self.hp.get("intermediate_size") is None:  # there is no dense layer
            del keys[Keys.LLM.FEED_FORWARD_LENGTH]
        return keys
