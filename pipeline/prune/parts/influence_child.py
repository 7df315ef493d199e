"""The child process of ``pipeline.prune.parts.depth``: how much each layer turns what flows through the model.

llama.cpp calls what leaves a layer ``l_out-N``. Block influence is 1 - cos(input, output) of a token, a mean over tokens
(Men et al. 2024, ShortGPT, arXiv 2403.03853, equation 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from agent.engine.llama import Context, ContextSettings, LlamaError
from pipeline.calibrate.ggml_tensor import GGMLTensor, NodeWatch, floats
from pipeline.forward.child import Forward, main

_FIRST, _OUT = ("embd", "inp_embd", "inp_scaled"), "l_out-"


class _StreamWatch(NodeWatch):
    """The callback: sums of 1 - cosine between what enters a layer and what leaves it."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = layers
        self.sums, self.tokens = np.zeros(layers), np.zeros(layers, np.int64)
        self._before: np.ndarray[Any, np.dtype[np.float32]] | None = None

    def look(self, node: GGMLTensor, ask: bool) -> bool:
        layer = self._layer(node.label)
        if layer is None:
            return not ask
        return True if ask else self._computed(layer, node)

    def _layer(self, label: str) -> int | None:
        """Number of the layer that this leaves; -1 for the embedding."""
        if label in _FIRST:
            return -1
        number = label.removeprefix(_OUT)
        return int(number) if number != label and number.isdigit() else None

    def _computed(self, layer: int, node: GGMLTensor) -> bool:
        values = floats(node)
        if values is None:
            raise ValueError(f"{node.label} is no float32")
        rows = values.reshape(-1, values.shape[-1]).astype(np.float32)
        if layer >= 0:
            if self._before is None or self._before.shape != rows.shape:
                raise ValueError(f"{node.label} does not follow what was before it")
            lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(self._before, axis=1)
            cosines = np.einsum("ij,ij->i", rows, self._before) / np.maximum(lengths, 1e-30)
            self.sums[layer] += float(np.sum(1 - cosines, dtype=np.float64))
            self.tokens[layer] += len(rows)
        self._before = rows
        return layer + 1 < self.layers  # the head need not be computed


class Influence(Forward):
    """A model whose layers are watched while it reads windows."""

    ops = (*Forward.ops, "read", "influence")

    def __init__(self, message: Mapping[str, Any]) -> None:
        self.watch = _StreamWatch(int(message["layers"]))
        super().__init__(message)

    def make_context(self, settings: ContextSettings) -> Context:
        # Only of tokens whose logits are asked for does llama.cpp compute the last layer whole.
        return Context(self.model, replace(settings, n_outputs=settings.n_batch), self.watch)

    def read(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Read one window."""
        for _ in self.decode(message["ids"], 0):
            if self.watch.error is not None:
                raise LlamaError(f"its layers cannot be watched: {self.watch.error}")
        return {}

    def influence(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The mean of each layer over all tokens so far."""
        if not self.watch.tokens.all():
            raise LlamaError(f"layer {int(np.argmin(self.watch.tokens))} has no l_out to be watched")
        return {"influence": (self.watch.sums / self.watch.tokens).tolist()}


if __name__ == "__main__":
    main(Influence)
