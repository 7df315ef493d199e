"""LLaVA-OneVision, a wrapper for text and images. If config.json names no type for its text part, that is Qwen2."""

from pipeline.architectures.qwen2 import Qwen2


class LlavaOnevision(Qwen2):
    pass
