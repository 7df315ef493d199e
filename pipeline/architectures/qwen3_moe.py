"""Qwen3 MoE: Qwen3 with experts in every layer."""

from __future__ import annotations

from pipeline.architectures.shared.decoder import ATTENTION, PRE_NORMS, QK_NORMS, TRUNK, sizes
from pipeline.architectures.shared.moe import EXPERTS, QwenExperts


class Qwen3Moe(QwenExperts):
    gguf = "qwen3moe"
    has_window = "if used"
    defaults = sizes(
        2048, 6144, 24, 32, 4, 32768, sliding_window=4096, moe_intermediate_size=768, num_experts_per_tok=8, num_experts=128,
        norm_topk_prob=False,
    )  # fmt: skip
    names = TRUNK | PRE_NORMS | ATTENTION | QK_NORMS | EXPERTS
