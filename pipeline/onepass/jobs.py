"""The job of a slab: what the plan says about the rows that were read."""

from __future__ import annotations

import numpy as np

from agent.gguf.types import F32
from pipeline.onepass.order import Unit, read_length
from pipeline.onepass.rows import SlabJob
from pipeline.preflight import Preflight
from pipeline.sources.checkpoint import SOURCE_TYPES, RawRows


def job_of(plan: Preflight, unit: Unit, raw: RawRows) -> SlabJob:
    """What is to be done with the rows of a unit."""
    tensor = unit.tensor
    importance = plan.imatrix.of(tensor.name, tensor.shape) if plan.imatrix else None
    if importance is not None:
        matrix = tensor.shape[-2] if len(tensor.shape) > 2 else tensor.n_rows
        importance = np.ascontiguousarray(importance[unit.row // matrix])
    kind = SOURCE_TYPES[plan.model.infos[unit.reads[0][0]].dtype] if unit.reads else F32
    target = plan.choices[tensor.name].type
    scale = None
    if tensor.scale is not None:
        scale = tensor.scale[unit.row : unit.row + (len(raw) if unit.rows is None else len(unit.rows))]
    length = read_length(tensor, plan.model.infos[unit.reads[0][0]].row_length) if unit.reads else tensor.row_length
    return SlabJob(
        tensor.name, raw, kind, length, target, unit.rows, tensor.column_order, tensor.function, scale, tensor.transposed,
        importance,
    )  # fmt: skip
