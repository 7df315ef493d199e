"""SmolLM3: Llama in which every fourth layer has no positions (NoPE)."""

from __future__ import annotations

from agent.errors import UnsupportedError
from pipeline.architectures.shared.decoder import Decoder, sizes


class SmolLM3(Decoder):
    gguf = "smollm3"
    has_window = "if used"
    defaults = sizes(2048, 11008, 36, 16, 4, 32768, rope_theta=2e6, tie_word_embeddings=True)
    interleaved_rope = True

    def check(self) -> None:
        super().check()
        every = self.integer("no_rope_layer_interval", default=4)
        layers = self.hp.get("no_rope_layers")
        if layers is None:
            layers = [int((i + 1) % every != 0) for i in range(self.n_layers)]
        if not isinstance(layers, list) or layers[: self.n_layers] != [int((i + 1) % 4 != 0) for i in range(self.n_layers)]:
            raise UnsupportedError("llama.cpp's smollm3 leaves out RoPE in every fourth layer; no_rope_layers says otherwise")
