"""The pass over all tensors: slabs are read in order, handed to an executor, and written as they come back."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Executor, Future

import numpy as np

from agent.errors import OutputError
from agent.gguf.types import F32
from pipeline.onepass.journal import Journal
from pipeline.onepass.order import Streamed, Unit, mapped, units_of
from pipeline.onepass.part_file import PartFile
from pipeline.onepass.rows import SlabJob, convert
from pipeline.preflight import Preflight
from pipeline.sources.cache import OnBytes, silent
from pipeline.sources.checkpoint import SOURCE_TYPES, Checkpoint, RawRows
from pipeline.sources.stream import StreamCheckpoint


def write_tensors(
    plan: Preflight,
    checkpoint: Checkpoint,
    executor: Executor,
    workers: int,
    fd: int,
    journal: Journal,
    on_bytes: OnBytes = silent,
) -> None:
    """Write all tensor data of the plan into an open file that has its header and its final size.

    Args:
        workers: how many slabs are worked on at a time; some more wait, so that a slow one does not hold up the rest.
        journal: what is done already, and where each slab is noted.
        on_bytes: called after each slab with the tensor's name, the bytes written and the bytes to write.

    Raises:
        SprigError: a weight or a slab is bad, or the source broke off.
    """
    finished = {slab.offset for slab in journal.done}
    units = [u for tensor, offset in zip(plan.tensors, plan.layout.offsets, strict=True) for u in units_of(plan, tensor, offset)]
    todo = [u for u in units if u.offset not in finished]
    body = plan.size - len(plan.layout.header)
    window: deque[tuple[Unit, Future[tuple[RawRows, int]]]] = deque()

    def collect() -> None:
        unit, future = window.popleft()
        file.put(unit.offset, *future.result(), stream.note() if stream else "")
        on_bytes(unit.tensor.name, file.written, body)

    stream = Streamed(plan, checkpoint, todo, journal.done) if isinstance(checkpoint, StreamCheckpoint) else None
    with PartFile(fd, journal) as file:
        try:
            for unit, raw in stream or mapped(checkpoint, todo):
                window.append((unit, executor.submit(convert, _job(plan, unit, raw))))
                if len(window) > 4 * workers:
                    collect()
            while window:
                collect()
        finally:
            for _, future in window:
                future.cancel()
    if stream:
        stream.finish()
    if file.written != sum(entry.nbytes for entry in plan.layout.entries):
        raise OutputError("the file is not whole: fewer bytes were written than planned; report this as a bug")


def _job(plan: Preflight, unit: Unit, raw: RawRows) -> SlabJob:
    tensor = unit.tensor
    importance = plan.imatrix.of(tensor.name, tensor.shape) if plan.imatrix else None
    if importance is not None:
        matrix = tensor.shape[-2] if len(tensor.shape) > 2 else tensor.n_rows
        importance = np.ascontiguousarray(importance[unit.row // matrix])
    kind = SOURCE_TYPES[plan.model.infos[unit.reads[0][0]].dtype] if unit.reads else F32
    target = plan.choices[tensor.name].type
    return SlabJob(
        tensor.name, raw, kind, tensor.row_length, target, unit.rows, tensor.column_order, tensor.function, importance,
        tensor.transposed,
    )  # fmt: skip
