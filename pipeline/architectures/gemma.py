"""Gemma 1 and CodeGemma: norms that add 1, GELU, embeddings scaled by llama.cpp itself, and a head that is the embedding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agent.errors import UnsupportedError
from pipeline.architectures.shared.decoder import Decoder, sizes
from pipeline.architectures.shared.tensor import Tensor


class Gemma1(Decoder):
    gguf = "gemma"
    defaults = sizes(3072, 24576, 28, 16, 16, 8192, head_dim=256, tie_word_embeddings=True)
    # The first files said "gelu" and meant the tanh form, which is what llama.cpp computes.
    activations = frozenset({"gelu_pytorch_tanh", "gelu"})

    def check(self) -> None:
        super().check()
        if self.flag("use_bidirectional_attention"):
            raise UnsupportedError("config.json sets use_bidirectional_attention; llama.cpp's gemma looks back only")
        if not self.tied:
            raise UnsupportedError("llama.cpp's gemma always takes the embedding as its head; tie_word_embeddings is false here")

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        return replace(tensor, function="add_one") if tensor.name.endswith("norm.weight") else tensor
