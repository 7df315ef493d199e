"""Mistral: Llama without biases, and with a window. Also the text part of Mistral Small 3.x, whose wrapper is mistral3."""

from __future__ import annotations

from pipeline.architectures.llama import Llama
from pipeline.architectures.shared.decoder import Decoder, sizes


class Mistral(Llama):
    has_window = "always"
    defaults = sizes(4096, 14336, 32, 32, 8, 131072, sliding_window=4096)
    names = Decoder.names
    ignored = (*Llama.ignored, r"^(model\.)?(vision_tower|multi_modal_projector)\.")
    bias_flags = Decoder.bias_flags

    @property
    def tied(self) -> bool:
        # Where nothing is said, the wrapper's default counts, which is not Mistral's own.
        return self.flag("tie_word_embeddings") if "tie_word_embeddings" in self.hp else bool(self.hp.get("text_config"))
