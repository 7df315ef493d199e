"""Qwen2.5-Omni, a wrapper for text, images and sound around a model that thinks and one that talks."""

from pipeline.architectures.qwen2_vl_text import Qwen2VlText


class Qwen25Omni(Qwen2VlText):
    pass
