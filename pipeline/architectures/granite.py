"""Granite 3: Llama with four multipliers."""

from __future__ import annotations

from gguf import Keys

from pipeline.architectures.llama import Llama
from pipeline.format.gguf_file import Value

_MULTIPLIERS = {
    Keys.Attention.SCALE: "attention_multiplier",
    Keys.LLM.EMBEDDING_SCALE: "embedding_multiplier",
    Keys.LLM.RESIDUAL_SCALE: "residual_multiplier",
    Keys.LLM.LOGIT_SCALE: "logits_scaling",
}


class Granite(Llama):
    gguf = "granite"
    defaults = Llama.defaults | dict.fromkeys(_MULTIPLIERS.values(), 1.0)

    def keys(self) -> dict[str, Value]:
        return super().keys() | {key: self.number(name) for key, name in _MULTIPLIERS.items()}
