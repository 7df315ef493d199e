"""The second moments of a model's inputs, as the cuts ask for them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from agent.errors import SprigError
from pipeline.calibrate.statistics import Statistics
from pipeline.format.ggml import Floats
from pipeline.prune.structure import Structure

Doubles = npt.NDArray[np.float64]
Folds = tuple[tuple[Floats, int], tuple[Floats, int]]


class Activations:
    """Statistics that were proved to be of this model.

    Raises:
        SprigError: they are of another.
    """

    def __init__(self, statistics: Statistics, structure: Structure) -> None:
        statistics.check({name: tensor.shape for name, tensor in structure.tensors.items()})
        self._statistics = statistics

    def folds(self, name: str) -> Folds:
        """Second moments of a weight's input on the two halves of the text, with their tokens. ``name`` is that of the GGUF."""
        a, b = self._statistics.hessian(name, "A"), self._statistics.hessian(name, "B")
        if a is None or b is None:
            raise self._unmeasured(name)
        return a, b

    def both(self, name: str) -> Floats:
        """The sum over the whole text."""
        found = self._statistics.hessian(name)
        if found is None:
            raise self._unmeasured(name)
        return found[0]

    def squares(self, name: str) -> Doubles:
        """Mean square of each column of a weight's input."""
        found = self._statistics.squares(name)
        if found is None:
            raise self._unmeasured(name)
        squares: Doubles = found[0].astype(np.float64)
        return squares

    def _unmeasured(self, name: str) -> SprigError:
        return SprigError(
            f"{self._statistics.folder} has no second moments for {name}: make it anew (sprig calibrate --statistics)"
        )
