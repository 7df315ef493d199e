"""Qwen3.5 MoE without a part for images: what the wrapper qwen3_5_moe has inside."""

from pipeline.architectures.qwen3_5_moe import Qwen35Moe


class Qwen35MoeText(Qwen35Moe):
    pass
