"""The text part of Qwen2.5-VL, which is that of Qwen2-VL."""

from pipeline.architectures.qwen2_vl_text import Qwen2VlText


class Qwen25VlText(Qwen2VlText):
    pass
