"""Mistral: Llama without biases, and with a window. Also the text part of Mistral Small 3.x, whose wrapper is mistral3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pipeline.architectures.llama import Llama
from pipeline.architectures.shared.decoder import Decoder, sizes


class Mistral(Llama):
    has_window = "always"
    defaults: ClassVar[Mapping[str, Any]] = sizes(4096, 14336, 32, 32, 8, 131072, sliding_window=4096)
    names: ClassVar[Mapping[str, str]] = Decoder.names
    ignored: ClassVar[tuple[str, ...]] = (*Llama.ignored, r"^(model\.)?(vision_tower|multi_modal_projector)\.")
    bias_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @property
    def tied(self) -> bool:
        # Where nothing is said, the wrapper's default counts, which is not Mistral's own.
        return self.flag("tie_word_embeddings") if "tie_word_embeddings" in self.hp else bool(self.hp.get("text_config"))
