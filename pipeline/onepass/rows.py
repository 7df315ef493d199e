"""One slab of rows on its way: raw checkpoint bytes in, the bytes of the target type out.

``convert`` is a module-level function of plain arguments, so that any ``concurrent.futures.Executor`` can run it: threads here
(ggml's kernels release the GIL), processes or a cluster where somebody brings one.
"""

from __future__ import annotations

import threading
import zlib
from dataclasses import dataclass
from typing import cast

import numpy as np

from agent.errors import CheckpointError, OutputError
from agent.gguf.types import GGMLType
from pipeline.architectures.shared.tensor import Elementwise, Index
from pipeline.format import ggml
from pipeline.format.ggml import Bytes, Floats


@dataclass(frozen=True, slots=True)
class SlabJob:
    """What to do with one slab.

    Attributes:
        tensor: the output tensor's name, for messages.
        raw: uint8 [source rows, bytes per row].
        source: how they are stored ("F64" for double, which ggml does not name).
        row_length: weights per row, as they are read.
        target: the type to write.
        rows: which rows of ``raw``, in which order; None takes all as they are.
        columns: the order of columns; None keeps it.
        function: applied to each weight.
        scale: float32 [rows], what each row is multiplied with after that.
        transposed: the rows to write are the columns of ``raw``; ``rows`` says which.
        importance: float32 [row_length] from the imatrix.
    """

    tensor: str
    raw: Bytes
    source: GGMLType
    row_length: int
    target: GGMLType
    rows: Index | None = None
    columns: Index | None = None
    function: Elementwise | None = None
    scale: Floats | None = None
    transposed: bool = False
    importance: Floats | None = None


def convert(job: SlabJob) -> tuple[Bytes, int]:
    """The rows as they stand in the file, uint8 [rows, bytes per row], and the CRC-32 by which the journal proves them.

    Raises:
        CheckpointError: a weight is NaN or infinite.
        OutputError: the target type cannot hold the weights.
    """
    raw = job.raw if job.rows is None or job.transposed else job.raw[job.rows]
    raw = np.ascontiguousarray(raw)
    as_it_is = job.columns is None and job.function is None and job.scale is None and not job.transposed
    if job.source == job.target and as_it_is:
        if not ggml.valid(raw, job.target):
            _refuse(job, ggml.to_float(raw, job.source, job.row_length))
        return raw, zlib.crc32(raw.data)
    weights = _weights(raw, job, _scratch(len(raw), job.row_length))
    out = ggml.quantize(weights, job.target, job.importance)
    if not ggml.valid(out, job.target):
        out = _rescue(job, weights)
    return out, zlib.crc32(out.data)


def weights_of(job: SlabJob) -> Floats:
    """The rows as float32, transformed as the job says. Raises CheckpointError if a weight is NaN or infinite."""
    raw = job.raw if job.rows is None or job.transposed else job.raw[job.rows]
    return _weights(np.ascontiguousarray(raw), job, None)


def _weights(raw: Bytes, job: SlabJob, scratch: Floats | None) -> Floats:
    weights = ggml.to_float(raw, job.source, job.row_length, scratch)
    # A sum is finite unless a weight is not (or the sum itself overflows, which the second look sorts out), and is read once.
    with np.errstate(over="ignore", invalid="ignore"):
        total = weights.sum()
    if not np.isfinite(total) and not np.isfinite(weights).all():
        _refuse(job, weights)
    return apply(weights, job)


_LARGEST_SCRATCH = 1 << 21
_local = threading.local()


def _scratch(rows: int, row_length: int) -> Floats | None:
    """Memory for a slab that this thread uses again: allocating it for each would cost more than reading the weights."""
    size = rows * row_length
    if size > _LARGEST_SCRATCH:
        return None
    room = getattr(_local, "room", None)
    if room is None or room.size < size:
        room = _local.room = np.empty(size, dtype=np.float32)
    return cast(Floats, room[:size].reshape(rows, row_length))


def apply(weights: Floats, job: SlabJob) -> Floats:
    """The weights transposed, with their columns reordered, the function applied and the rows scaled, as the job says."""
    if job.transposed:
        weights = (weights if job.rows is None else weights[:, job.rows]).T
    if job.columns is not None:
        weights = weights[:, job.columns]
    if job.function == "add_one":
        weights = weights + np.float32(1)
    elif job.function == "neg_exp":
        weights = -np.exp(weights)
    if job.scale is not None:
        weights = weights * job.scale[:, None]
    return np.ascontiguousarray(weights, dtype=np.float32)


def _rescue(job: SlabJob, weights: Floats) -> Bytes:
    """Try again with a small floor under the importances: a block of zeros makes some kernels compute 0/0."""
    if job.importance is not None:
        positive = job.importance[job.importance > 0]
        floor = positive.min() * np.float32(1e-3) if positive.size else np.float32(1)
        out = ggml.quantize(weights, job.target, np.maximum(job.importance, floor))
        if ggml.valid(out, job.target):
            return out
    largest = float(np.abs(weights).max())
    raise OutputError(
        f"tensor {job.tensor!r} does not fit {job.target.name}: its largest weight is {largest:.3g}; choose BF16 for it "
        f"(--tensor-type '{job.tensor}=BF16')"
    )


def _refuse(job: SlabJob, weights: Floats) -> None:
    bad = np.argwhere(~np.isfinite(weights))
    if not len(bad):
        raise CheckpointError(f"tensor {job.tensor!r} has broken {job.source.name} blocks; download the model again")
    row, column = (int(v) for v in bad[0])
    value = float(weights[row, column])
    raise CheckpointError(
        f"tensor {job.tensor!r} holds {len(bad)} NaN or infinite weights (the first, {value}, in column {column}); "
        "the checkpoint is broken or was saved after a diverged training: take another revision"
    )
