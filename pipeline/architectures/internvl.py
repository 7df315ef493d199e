"""InternVL, a wrapper for text and images. If config.json names no type for its text part, that is Qwen2."""

from pipeline.architectures.qwen2 import Qwen2


class InternVl(Qwen2):
    pass
