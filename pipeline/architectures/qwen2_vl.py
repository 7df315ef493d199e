"""Qwen2-VL, a wrapper for text and images; config.json may state its text part flat."""

from pipeline.architectures.qwen2_vl_text import Qwen2VlText


class Qwen2Vl(Qwen2VlText):
    pass
