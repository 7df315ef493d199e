"""Qwen2 MoE: Qwen2 with experts in every layer, and one that all tokens share, behind a gate of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pipeline.architectures.qwen2 import Qwen2
from pipeline.architectures.shared.decoder import PRE_NORMS, TRUNK, OwnHead, sizes
from pipeline.architectures.shared.moe import EXPERTS, SHARED_EXPERT, QwenSharedExperts


class Qwen2Moe(OwnHead, QwenSharedExperts, Qwen2):
    gguf = "qwen2moe"
    defaults = sizes(
        2048, 5632, 24, 16, 16, 32768, sliding_window=4096, max_window_layers=28, moe_intermediate_size=1408,
        shared_expert_intermediate_size=5632, num_experts_per_tok=4, num_experts=60, norm_topk_prob=False, qkv_bias=True,
    )  # fmt: skip
    names = TRUNK | PRE_NORMS | {k: v for k, v in Qwen2.names.items() if "self_attn" in k} | EXPERTS | SHARED_EXPERT
    optional = QwenSharedExperts.optional
    normalized = False
    bias_always = ()
    bias_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {"qkv_bias": Qwen2.bias_always}
