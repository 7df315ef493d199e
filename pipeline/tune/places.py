"""From a GGUF's rows back to those of the checkpoint: the way of ``pipeline.onepass.rows``, run the other way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

import numpy as np

from pipeline.architectures.shared.tensor import Index, Tensor
from pipeline.format.ggml import Floats
from pipeline.sources.checkpoint import TensorInfo


def whole(tensor: Tensor, infos: Mapping[str, TensorInfo]) -> bool:
    """Whether the tensor is all of one tensor of the checkpoint, with nothing done to it but an order and a factor of its rows,
    or one added."""
    if len(tensor.sources) != 1 or tensor.transposed or tensor.function == "neg_exp":
        return False
    piece = tensor.sources[0]
    same = piece.start == 0 and piece.stop in (None, infos[piece.source].n_rows)
    return same and prod(infos[piece.source].shape) == prod(tensor.shape)


def inverse(order: Index) -> Index:
    """The order that undoes one."""
    undo = np.empty_like(order)
    undo[order] = np.arange(len(order))
    return undo


def restored(values: Floats, tensor: Tensor, infos: Mapping[str, TensorInfo]) -> Iterator[tuple[str, int, Floats]]:
    """What a GGUF's weights are in the checkpoint.

    Args:
        values: float32 [rows, row length] of the GGUF's tensor.

    Yields:
        the checkpoint tensor, its first row, and the rows, float32; nothing where the way cannot be undone.
    """
    lost = tensor.column_order is not None and len(tensor.column_order) != infos[tensor.sources[0].source].row_length
    if lost or (tensor.transposed and len(tensor.sources) > 1):
        return
    if tensor.scale is not None:
        values = values / tensor.scale[:, None]
    if tensor.function == "add_one":
        values = values - np.float32(1)
    elif tensor.function == "neg_exp":
        values = np.log(-values)
    if tensor.column_order is not None:
        values = values[:, inverse(tensor.column_order)]
    if tensor.row_order is not None:
        values = values[inverse(tensor.row_order)]
    values = np.ascontiguousarray(values.T if tensor.transposed else values)
    row = 0
    for piece in tensor.sources:
        info = infos[piece.source]
        rows = (info.n_rows if piece.stop is None else piece.stop) - piece.start
        taken = rows * info.row_length // values.shape[1]
        yield piece.source, piece.start, values[row : row + taken].reshape(rows, info.row_length)
        row += taken
