"""Tensors that an encoder rounds: each comes as a whole and goes into the file as one slab."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby

import numpy as np

from pipeline.format.ggml import Floats
from pipeline.onepass.jobs import job_of
from pipeline.onepass.order import Unit, mapped
from pipeline.onepass.part_file import PartFile
from pipeline.onepass.rows import weights_of
from pipeline.preflight import Preflight
from pipeline.rounding.encoder import TensorEncoder
from pipeline.sources.checkpoint import Checkpoint


def encode_whole(
    plan: Preflight,
    checkpoint: Checkpoint,
    encoder: TensorEncoder,
    units: Sequence[Unit],
    file: PartFile,
    on_tensor: Callable[[str], None],
) -> list[Unit]:
    """Write the tensors that the encoder takes.

    Args:
        units: all that is still to be written, in the order of the file. A tensor of which a slab is written is left to
            ggml's kernels: an earlier run found that they round it better.
        on_tensor: called with the name of each tensor that was written.

    Returns:
        The units of all other tensors.

    Raises:
        CheckpointError: a weight is NaN or infinite.
    """
    inside = [(slab.offset, slab.offset + slab.length) for slab in file.journal.done]
    left: list[Unit] = []
    for name, group in groupby(units, key=lambda unit: unit.tensor.name):
        own, kind = list(group), plan.choices[name].type
        tensor, offset = own[0].tensor, plan.layout.offsets[[t.name for t in plan.tensors].index(name)]
        end = offset + kind.size(tensor.shape)
        begun = [1 for start, stop in inside if offset <= start and stop <= end]
        if begun and any(stop == end and start == offset for start, stop in inside):
            continue  # it was written as a whole
        data = None
        if tensor.values is None and not begun and encoder.wants(name, kind, partial(_rows, plan, checkpoint, own[0])):
            data = encoder.encode(name, _whole(plan, checkpoint, own), kind)
        if data is None:
            left += own
            continue
        file.put(offset, data, zlib.crc32(np.ascontiguousarray(data).data))
        on_tensor(name)
    return left


def _whole(plan: Preflight, checkpoint: Checkpoint, units: Sequence[Unit]) -> Floats:
    """A tensor's weights, float32 [rows, columns], or [matrices, rows, columns]."""
    tensor = units[0].tensor
    weights = np.empty((tensor.n_rows, tensor.row_length), np.float32)
    for unit, raw in mapped(checkpoint, units):
        rows = weights_of(job_of(plan, unit, raw))
        weights[unit.row : unit.row + len(rows)] = rows
    return weights.reshape(tensor.shape) if len(tensor.shape) == 3 else weights


def _rows(plan: Preflight, checkpoint: Checkpoint, unit: Unit) -> Floats:
    """The weights of one unit."""
    return next(weights_of(job_of(plan, one, raw)) for one, raw in mapped(checkpoint, [unit]))
