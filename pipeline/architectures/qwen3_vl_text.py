"""The text part of Qwen3-VL: Qwen3, whose positions may have three axes, and whose first layers take up what the eyes saw."""

from __future__ import annotations

from gguf import Keys

from pipeline.architectures.qwen3 import Qwen3
from pipeline.architectures.shared.decoder import sizes
from pipeline.architectures.shared.rope import mrope_sections
from pipeline.format.gguf_file import Value


class Qwen3VlText(Qwen3):
    gguf = "qwen3vl"
    defaults = sizes(4096, 22016, 32, 32, 32, 128000, head_dim=128, rope_theta=5e5)

    def keys(self) -> dict[str, Value]:
        eyes = self.hp.get("vision_config")
        layers = eyes.get("deepstack_visual_indexes") if isinstance(eyes, dict) else None
        return super().keys() | {
            Keys.Rope.DIMENSION_SECTIONS: mrope_sections(self.hp, [24, 20, 20]),
            Keys.LLM.NUM_DEEPSTACK_LAYERS: len(layers) if isinstance(layers, list) else 0,
        }
