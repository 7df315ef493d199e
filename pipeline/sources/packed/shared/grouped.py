"""Small integers with a scale and a zero for each group of columns: what GPTQ, AWQ and compressed-tensors have in common."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from agent.errors import CheckpointError
from pipeline.sources.checkpoint import Checkpoint
from pipeline.sources.packed.shared.bits import Codes, matrix
from pipeline.sources.packed.shared.view import Floats

Groups = npt.NDArray[np.int64]


def grouped(codes: Codes, zeros: Floats | Codes | int, scales: Floats, group_of: Groups) -> Floats:
    """(code - zero) * scale.

    Args:
        codes: uint8 [rows, columns].
        zeros: one for all, or [rows, groups].
        scales: float32 [rows, groups].
        group_of: int64 [columns], the group of each column.
    """
    weights = codes.astype(np.float32)
    weights -= np.float32(zeros) if isinstance(zeros, int) else zeros.astype(np.float32)[:, group_of]
    weights *= scales[:, group_of]
    return weights


def even_groups(length: int, size: int) -> Groups:
    """Groups of ``size`` neighbouring columns."""
    return np.arange(length, dtype=np.int64) // size


def stored_groups(stored: Checkpoint, name: str, groups: int) -> Groups:
    """The group of each column as a tensor ``g_idx`` gives it. Raises CheckpointError if one of them is not there."""
    info = stored.tensors[name]
    raw = np.ascontiguousarray(matrix(stored, name, 0, 1, info.row_length))
    index = raw.view("<i8" if info.dtype == "I64" else "<i4").ravel().astype(np.int64)
    if index.size and not (index.min() >= 0 and index.max() < groups):
        bad = int(index.min() if index.min() < 0 else index.max())
        raise CheckpointError(f"tensor {name!r} names group {bad}, and there are {groups}; download it again")
    return index
