"""llama.cpp's evaluation callback as a stop before weights: behind the step that computes their input, before they are used."""

from __future__ import annotations

from collections.abc import Callable, Collection

from pipeline.calibrate.ggml_tensor import GGMLTensor, NodeWatch, floats, operations
from pipeline.format.ggml import Floats

OnInput = Callable[[str, Floats], bool]  # label of an input, its rows; False ends the computation


class InputWatch(NodeWatch):
    """The callback of one context. The first computation finds the inputs; from then on ``on_input`` is called with each.

    Args:
        weights: GGUF names of the weights whose inputs are wanted.

    Attributes:
        inputs: label of the step that computes an input -> the weights that it goes into.
    """

    def __init__(self, weights: Collection[str]) -> None:
        super().__init__()
        self._product, self._weights = operations()["MUL_MAT"], frozenset(weights)
        self.inputs: dict[str, list[str]] = {}
        self.on_input: OnInput | None = None

    def look(self, node: GGMLTensor, ask: bool) -> bool:
        if self.on_input is None:
            self._find(node)
            return not ask
        if ask:
            return node.label in self.inputs
        rows = floats(node)
        if rows is None:
            raise ValueError(f"{node.label} is not in the memory of this machine")
        return self.on_input(node.label, rows.reshape(-1, rows.shape[-1]))

    def _find(self, node: GGMLTensor) -> None:
        if node.op != self._product:
            return
        weight, data = node.source(0), node.source(1)
        if weight is not None and data is not None and weight.label in self._weights:
            self.inputs.setdefault(data.label, []).append(weight.label)
