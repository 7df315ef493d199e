"""The text part of Qwen2-VL: Qwen2, whose positions may have three axes; for text all three are the same."""

from __future__ import annotations

from gguf import Keys

from pipeline.architectures.qwen2 import Qwen2
from pipeline.architectures.shared.decoder import sizes
from pipeline.architectures.shared.rope import mrope_sections
from pipeline.format.gguf_file import Value


class Qwen2VlText(Qwen2):
    gguf = "qwen2vl"
    defaults = sizes(8192, 29568, 80, 64, 8, 32768, rms_norm_eps=1e-5, rope_theta=1e6, sliding_window=4096, max_window_layers=80)

    def keys(self) -> dict[str, Value]:
        return super().keys() | {Keys.Rope.DIMENSION_SECTIONS: mrope_sections(self.hp, [16, 24, 24])}
