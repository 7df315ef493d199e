"""ERNIE 4.5 (0.3B): Llama in which transformers, too, turns neighbouring dimensions."""

from __future__ import annotations

from agent.errors import UnsupportedError
from pipeline.architectures.shared.decoder import Decoder, sizes


class Ernie45(Decoder):
    gguf = "ernie4_5"
    defaults = sizes(
        1024, 3072, 18, 16, 2, 131072, rms_norm_eps=1e-5, head_dim=128, rope_theta=500000.0, tie_word_embeddings=True
    )

    def check(self) -> None:
        super().check()
        if self.flag("use_bias"):
            raise UnsupportedError("config.json sets use_bias; llama.cpp's ernie4_5 has no biases in its MLP")
