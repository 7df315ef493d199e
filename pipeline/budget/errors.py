"""What rounding one tensor does to what it computes: the share of its output's mean square that becomes error.

With the rows W of a tensor, their rounding error D and the second moment H = E[x x^T] of its inputs x, that is
trace(D H D^T) / trace(W H W^T). Where only the diagonal of H is known (an imatrix) that is taken, where nothing is known the
identity. The loss of a model is about linear in this share, each tensor with its own slope: Malinovskii and others, "Pushing the
Limits of Large Language Model Quantization via the Linearity Theorem" (2024), arXiv 2411.17525.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from agent.gguf.types import GGMLType
from pipeline.budget.work_file import WorkFile, row_ranges
from pipeline.format import ggml
from pipeline.format.ggml import Bytes, Floats
from pipeline.rounding.encoder import Inputs, TensorEncoder

ROWS = 128  # of a tensor that are looked at


@dataclass(frozen=True, slots=True)
class Rounder:
    """Who rounds, and what is known of the inputs beside the importance matrix.

    Attributes:
        name: "ggml" for its own kernels.
        inputs: the second moments, where they were measured.
        errors: of another encoder than ggml: tensor name, weights float32 [..., rows, columns] and types -> type name -> squared
            error of the output on unseen inputs, a mean over tokens and a sum over rows. A type that is missing is ggml's.
        encode: that encoder: tensor name, weights and type -> uint8 [rows, bytes per row]; None where ggml rounds better.
    """

    name: str = "ggml"
    inputs: Inputs | None = None
    errors: Callable[[str, Floats, Sequence[GGMLType]], Mapping[str, float]] | None = None
    encode: Callable[[str, Floats, GGMLType], Bytes | None] | None = None

    def lower(self, work: WorkFile, names: Sequence[str], kind: GGMLType) -> None:
        """Give tensors of the work file's copy the values that they have after rounding to a type."""
        for name in names if self.encode else ():
            assert self.encode is not None
            made = self.encode(name, work.whole(name), kind)
            if made is not None:
                work.put(name, ggml.to_float(made, kind, work.tensors[name].shape[-1]))
                names = [other for other in names if other != name]
        work.lower(names, kind)

    @classmethod
    def of(cls, encoder: TensorEncoder | None) -> Rounder:
        """An encoder; ggml where there is none."""
        return cls(encoder.name, encoder.inputs, encoder.errors, encoder.encode) if encoder else GGML

    def moment(self, work: WorkFile, name: str, matrix: int) -> Floats | None:
        """The second moment of a matrix's inputs, float32 [columns, columns], or its diagonal, [columns]; None if not known."""
        if self.inputs is not None:
            found = self.inputs.hessian(name, None, matrix)
            if found is not None and found[1]:
                return np.asarray(found[0] / np.float32(found[1]))
            squares = self.inputs.squares(name)
            if squares is not None:
                return np.asarray(squares[matrix])
        return work.importance(name, matrix)

    def shares(self, work: WorkFile, name: str, kinds: Sequence[GGMLType]) -> dict[str, float]:
        """The error of a tensor under each type: type name -> share of the output's mean square."""
        own = self.errors(name, work.whole(name), kinds) if self.errors is not None else {}
        rest = [kind for kind in kinds if kind.name not in own]
        lost, whole, rows, moments = dict.fromkeys(rest, 0.0), 0.0, 0, dict[int, Floats | None]()
        for piece in row_ranges(work.tensors[name], ROWS):
            if piece.matrix not in moments:
                moments = {piece.matrix: self.moment(work, name, piece.matrix)}
            moment, rows = moments[piece.matrix], rows + piece.stop - piece.start
            weights = work.rows(name, piece)
            whole += _power(weights, moment)
            for kind in rest:
                lost[kind] += _power(work.rounded(name, piece, kind) - weights, moment)
        if not whole > 0:
            return dict.fromkeys((kind.name for kind in kinds), 0.0)
        every_row = whole / rows * prod(work.tensors[name].shape[:-1])
        return {kind.name: value / whole for kind, value in lost.items()} | {k: value / every_row for k, value in own.items()}


GGML = Rounder()


def _power(rows: Floats, moment: Floats | None) -> float:
    """The sum over rows r of r H r^T."""
    if moment is None:
        return float(np.square(rows).sum(dtype=np.float64))
    if moment.ndim == 1:
        return float((np.square(rows) @ moment).sum(dtype=np.float64))
    return float(((rows @ moment) * rows).sum(dtype=np.float64))
