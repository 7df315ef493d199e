"""The repairs of one run: how each is computed when its tensor is written, and what each was worth."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.format.ggml import Floats
from pipeline.prune.activations import Activations
from pipeline.prune.outcome import RepairedTensor
from pipeline.prune.repair import Index, repair


class Repairs:
    """Collects ``done`` while tensors are written.

    Args:
        wanted: False leaves the weights that stay as they are, and says what that costs.
    """

    def __init__(self, inputs: Activations, *, wanted: bool = True) -> None:
        self.done: list[RepairedTensor] = []
        self._inputs, self._wanted = inputs, wanted

    def of(self, name: str, kept: Index) -> Callable[[Floats], Floats]:
        """How the weights of a GGUF tensor lose all columns but these."""

        def compute(weights: Floats) -> Floats:
            found = repair(weights, kept, self._inputs.folds(name), wanted=self._wanted)
            self.done.append(RepairedTensor(name, found.damp, found.before, found.after))
            return found.weights

        return compute
