"""Qwen3-VL, a wrapper for text and images."""

from pipeline.architectures.qwen3_vl_text import Qwen3VlText


class Qwen3Vl(Qwen3VlText):
    pass
