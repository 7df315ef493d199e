"""Gemma 3 without a part for images: what the wrapper gemma3 has inside. Looking both ways, it is EmbeddingGemma."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
from gguf import Keys

from pipeline.architectures.gemma3 import Gemma3
from pipeline.architectures.shared.pooling import dense_paths, read_dense
from pipeline.architectures.shared.tensor import Tensor
from pipeline.format.gguf_file import Value


class Gemma3Text(Gemma3):
    def check(self) -> None:
        if self.flag("use_bidirectional_attention"):
            self.gguf = "gemma-embedding"
        super().check()

    @cached_property
    def dense(self) -> dict[str, npt.NDArray[np.float32]]:
        """The two layers behind pooling, if llama.cpp can multiply with them: from and to vectors of the model's width."""
        if self.gguf != "gemma-embedding":
            return {}
        found = [read_dense(self.files, path) for path in dense_paths(self.files)]
        layers = [layer for layer in found if layer is not None]
        d = self.integer("hidden_size")
        if len(layers) != len(found) or len(layers) != 2 or (layers[0].shape[1], *layers[1].shape) != (d, d, len(layers[0])):
            return {}
        return dict(zip(("dense_2", "dense_3"), layers, strict=True))

    @property
    def takes_dense(self) -> bool:
        return bool(self.dense)

    def keys(self) -> dict[str, Value]:
        keys = super().keys()
        if self.gguf == "gemma-embedding":
            keys[Keys.Attention.CAUSAL] = False
        for name, weights in self.dense.items():
            keys[Keys.LLM.DENSE_FEAT_IN_SIZE.replace("{dense}", name)] = weights.shape[1]
            keys[Keys.LLM.DENSE_FEAT_OUT_SIZE.replace("{dense}", name)] = weights.shape[0]
        return keys

    def tensors(self) -> list[Tensor]:
        behind = [Tensor(f"{name}.weight", weights.shape, values=weights) for name, weights in self.dense.items()]
        return super().tensors() + behind
