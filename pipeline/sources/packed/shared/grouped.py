"""Small integers with a scale and a zero for each group of columns: what GPTQ, AWQ and compressed-tensors have in common."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from agent.errors import CheckpointError
from pipeline.sources.checkpoint import Checkpoint
from pipeline.sources.packed.shared.bits import Codes, matrix
from pipeline.sources.packed.shared.view import Floats

Groups = npt.NDArray[np.int64]


def grouped(codes: Floats | Codes, zeros: Floats | Codes | int, scales: Floats, group_of: Groups | int) -> Floats:
    """(code - zero) * scale.

    Args:
        codes: [rows, columns]; float32 ones are overwritten.
        zeros: one for all, or [rows, groups].
        scales: float32 [rows, groups].
        group_of: int64 [columns], the group of each column; or how many neighbouring columns a group has.
    """
    weights = codes.astype(np.float32, copy=False)
    rows, length = weights.shape
    if isinstance(group_of, int) and length % group_of:
        group_of = np.arange(length, dtype=np.int64) // group_of
    if isinstance(group_of, int):
        weights = weights.reshape(rows, -1, group_of)
        weights -= np.float32(zeros) if isinstance(zeros, int) else zeros.astype(np.float32)[:, :, None]
        weights *= scales[:, :, None]
    else:
        weights -= np.float32(zeros) if isinstance(zeros, int) else np.take(zeros.astype(np.float32), group_of, axis=1)
        weights *= np.take(scales, group_of, axis=1)
    return weights.reshape(rows, length)


def stored_groups(stored: Checkpoint, name: str, groups: int) -> Groups | int:
    """``group_of`` as a tensor ``g_idx`` gives it. Raises CheckpointError if a group is not there."""
    info = stored.tensors[name]
    raw = np.ascontiguousarray(matrix(stored, name, 0, 1, info.row_length))
    index = raw.view("<i8" if info.dtype == "I64" else "<i4").ravel().astype(np.int64)
    if index.size and not (index.min() >= 0 and index.max() < groups):
        bad = int(index.min() if index.min() < 0 else index.max())
        raise CheckpointError(f"tensor {name!r} names group {bad}, and there are {groups}; download it again")
    size = -(-len(index) // groups)
    return size if np.array_equal(index, np.arange(len(index)) // size) else index
