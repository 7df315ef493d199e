"""How far each tensor of a file is from the reference's: which weights paid for the bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from agent.gguf.reader import Header, TensorEntry
from pipeline.format.ggml import Bytes, Floats, to_float

_CHUNK = 1 << 22  # weights that are looked at together


def tensor_errors(reference: tuple[Path, Header], candidate: tuple[Path, Header]) -> dict[str, float]:
    """The error of each tensor that both files have in the same shape.

    Args:
        reference, candidate: each file and its header, checked.

    Returns:
        tensor -> root mean square of the difference of its weights, as a share of the root mean square of the reference's; 0
        where they are equal. A tensor whose reference is all zeros has none.
    """
    original, other = (np.memmap(path, np.uint8, "r").view(np.ndarray) for path, _ in (reference, candidate))
    errors = {}
    for name, entry in reference[1].tensors.items():
        theirs = candidate[1].tensors.get(name)
        if theirs is None or theirs.shape != entry.shape:
            continue
        lost = whole = 0.0
        for ours, made in zip(_rows(original, entry), _rows(other, theirs), strict=True):
            whole += _squares(ours)
            lost += _squares(ours - made)
        if whole > 0:
            errors[name] = math.sqrt(lost / whole)
    return errors


def _rows(data: Bytes, entry: TensorEntry) -> Iterator[Floats]:
    """The weights, so many rows at a time: float32 [rows, row length]."""
    length = entry.shape[-1]
    rows = data[entry.offset : entry.offset + entry.nbytes].reshape(-1, entry.type.row_size(length))
    step = max(1, _CHUNK // length)
    for start in range(0, len(rows), step):
        yield to_float(np.ascontiguousarray(rows[start : start + step]), entry.type, length)


def _squares(weights: Floats) -> float:
    flat = weights.ravel()
    return float(np.dot(flat, flat))
