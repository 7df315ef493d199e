"""Qwen3.5 without a part for images: what the wrapper qwen3_5 has inside."""

from pipeline.architectures.qwen3_5 import Qwen35


class Qwen35Text(Qwen35):
    pass
