"""Granite 3: Llama with four multipliers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pipeline.architectures.llama import Llama
from pipeline.format.gguf_file import Value


class Granite(Llama):
    model_types: ClassVar[tuple[str, ...]] = ("granite",)
    gguf = "granite"
    defaults: ClassVar[Mapping[str, Any]] = {
        **Llama.defaults, "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0,
        "attention_multiplier": 1.0,
    }  # fmt: skip

    def keys(self) -> dict[str, Value]:
        return super().keys() | {
            "attention.scale": self.number("attention_multiplier"),
            "embedding_scale": self.number("embedding_multiplier"),
            "residual_scale": self.number("residual_multiplier"),
            "logit_scale": self.number("logits_scaling"),
        }
