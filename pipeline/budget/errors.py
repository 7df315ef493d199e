"""What rounding one tensor does to what it computes: the share of its output's mean square that becomes error.

With the rows W of a tensor, their rounding error D and the second moment H = sum of x x^T over its inputs x, that is
trace(D H D^T) / trace(W H W^T). Where only the diagonal of H is known (an imatrix) that is taken, where nothing is known the
identity. The loss of a model is about linear in this share, each tensor with its own slope: Malinovskii and others, "Pushing the
Limits of Large Language Model Quantization via the Linearity Theorem" (2024), arXiv 2411.17525.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from agent.gguf.types import GGMLType
from pipeline.budget.work_file import RowRange, WorkFile, row_ranges
from pipeline.format.ggml import Floats

ROWS = 128  # of a tensor that are looked at

# The second moment of a tensor's inputs, float32 [columns, columns], or None where it is not known.
MomentOf = Callable[[str], Floats | None]


def output_errors(work: WorkFile, name: str, kinds: Sequence[GGMLType], moment: Floats | None = None) -> dict[str, float]:
    """The error of a tensor under each type, as ggml's own kernels round it: type name -> share of the output's mean square.

    Args:
        moment: of the tensor's inputs; by default the diagonal that the imatrix has.
    """
    pieces = list(row_ranges(work.tensors[name], ROWS))
    return {kind.name: _error(work, name, pieces, kind, moment) for kind in kinds}


def _error(work: WorkFile, name: str, pieces: Sequence[RowRange], kind: GGMLType, moment: Floats | None) -> float:
    lost = whole = 0.0
    for piece in pieces:
        weights, rounded = work.rounded(name, piece, kind)
        weigh = moment if moment is not None else work.importance(name, piece.matrix)
        lost += _power(rounded - weights, weigh)
        whole += _power(weights, weigh)
    return lost / whole if whole > 0 else 0.0


def _power(rows: Floats, moment: Floats | None) -> float:
    """The sum over rows r of r H r^T."""
    if moment is None:
        return float(np.square(rows).sum(dtype=np.float64))
    if moment.ndim == 1:
        return float((np.square(rows) @ moment).sum(dtype=np.float64))
    return float(((rows @ moment) * rows).sum(dtype=np.float64))
