"""Granite 3: Llama with four multipliers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gguf import Keys

from pipeline.architectures.llama import Llama
from pipeline.format.gguf_file import Value


class Granite(Llama):
    gguf = "granite"
    defaults: ClassVar[Mapping[str, Any]] = {
        **Llama.defaults, "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0,
        "attention_multiplier": 1.0,
    }  # fmt: skip

    def keys(self) -> dict[str, Value]:
        return super().keys() | {
            Keys.Attention.SCALE: self.number("attention_multiplier"),
            Keys.LLM.EMBEDDING_SCALE: self.number("embedding_multiplier"),
            Keys.LLM.RESIDUAL_SCALE: self.number("residual_multiplier"),
            Keys.LLM.LOGIT_SCALE: self.number("logits_scaling"),
        }
