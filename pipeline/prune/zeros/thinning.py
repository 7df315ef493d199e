"""Zeros in the weights of the layers: which tensors, what that costs, and what a compressed transfer saves by it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np

from pipeline.format.ggml import Bytes, Floats
from pipeline.prune.activations import Activations
from pipeline.prune.edits import Compute, Edits
from pipeline.prune.outcome import RepairedTensor
from pipeline.prune.repair import Index, relative_error
from pipeline.prune.structure import Structure
from pipeline.prune.zeros.methods import Sparsity, thin

NO_KERNEL = "ggml has no sparse kernel: zeros save a compressed transfer, and neither memory nor time"


class Thinning:
    """Collects what was thinned while tensors are written.

    Attributes:
        before, after: weights that were not zero.
        done: what it costs at the outputs, each tensor thinned for one half of the text and judged on the other.
    """

    def __init__(self, wish: Sparsity, inputs: Activations | None) -> None:
        self.before = self.after = 0
        self.done: list[RepairedTensor] = []
        self._wish, self._inputs = wish, inputs

    def plan(self, structure: Structure, edits: Edits, blocks: Iterable[int]) -> None:
        """Note the edits: every matrix of the layers, after all other cuts."""
        stay = {str(i) for i in blocks}
        for name, tensor in structure.tensors.items():
            if name.startswith("blk.") and name.split(".")[1] in stay and len(tensor.shape) == 2 and name.endswith(".weight"):
                own = structure.name(name)
                edits.change(own, self._of(name, edits.columns_of(own)))

    def _of(self, name: str, columns: Index | None) -> Compute:
        def compute(weights: Floats) -> Floats:
            self.before += int(np.count_nonzero(weights))
            found = self._thin(name, columns, weights)
            self.after += int(np.count_nonzero(found))
            return found

        return compute

    def _thin(self, name: str, columns: Index | None, weights: Floats) -> Floats:
        if self._inputs is None:
            return thin(weights, self._wish, None)
        a, b = (h if columns is None else h[np.ix_(columns, columns)] for h, _ in self._inputs.folds(name))
        error = relative_error(weights, thin(weights, self._wish, a), None, b)
        self.done.append(RepairedTensor(name, None, error, error))
        return thin(weights, self._wish, a + b)


class Packer:
    """Bytes that a stream would have if it were compressed."""

    def __init__(self) -> None:
        self.size = 0
        self._stream = zlib.compressobj(6)

    def add(self, raw: Bytes) -> None:
        self.size += len(self._stream.compress(raw.data))

    def finish(self) -> int:
        """The whole size; nothing can be added afterwards."""
        self.size += len(self._stream.flush())
        return self.size
