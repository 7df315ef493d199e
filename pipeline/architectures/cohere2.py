"""Command R7B and Command A: Command R in which three layers of four have a window, and only these have RoPE."""

from __future__ import annotations

from agent.errors import UnsupportedError
from pipeline.architectures.cohere import Cohere
from pipeline.architectures.shared.decoder import Windowed, sizes
from pipeline.format.gguf_file import Value


class Cohere2(Windowed, Cohere):
    gguf = "cohere2"
    defaults = sizes(
        8192, 22528, 40, 64, None, 8192, layer_norm_eps=1e-5, logit_scale=0.0625, tie_word_embeddings=True, sliding_window=4096
    )
    full_every = 4

    def check_norms(self) -> None:
        if self.flag("use_qk_norm"):
            raise UnsupportedError("config.json sets use_qk_norm; llama.cpp's cohere2 has no norms on queries and keys")

    def is_sliding(self) -> list[bool]:
        return self.sliding_layers(self.integer("sliding_window_pattern", default=self.full_every))

    def keys(self) -> dict[str, Value]:
        return super().keys() | self.window_keys()
