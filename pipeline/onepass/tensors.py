"""The pass over all tensors: slabs are read in order, handed to an executor, and written as they come back."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Executor, Future

from agent.errors import OutputError
from agent.hub.download import OnBytes
from pipeline.onepass.encoded import encode_whole
from pipeline.onepass.jobs import job_of
from pipeline.onepass.journal import Journal
from pipeline.onepass.order import Streamed, Unit, mapped, units_of
from pipeline.onepass.part_file import PartFile
from pipeline.onepass.rows import convert
from pipeline.preflight import Preflight
from pipeline.rounding.encoder import TensorEncoder
from pipeline.sources.cache import silent
from pipeline.sources.checkpoint import Checkpoint, RawRows
from pipeline.sources.stream import StreamCheckpoint


def write_tensors(
    plan: Preflight,
    checkpoint: Checkpoint,
    executor: Executor,
    workers: int,
    fd: int,
    journal: Journal,
    on_bytes: OnBytes = silent,
    encoder: TensorEncoder | None = None,
) -> None:
    """Write all tensor data of the plan into an open file that has its header and its final size.

    Args:
        workers: how many slabs are worked on at a time; some more wait, so that a slow one does not hold up the rest.
        journal: what is done already, and where each slab is noted.
        on_bytes: called at the beginning and after each slab with the tensor's name, the bytes written and the bytes to write.
        encoder: rounds the tensors that it wants, each as a whole; ggml's kernels round the rest.

    Raises:
        SprigError: a weight or a slab is bad, or the source broke off.
    """
    finished = {slab.offset for slab in journal.done}
    units = [u for tensor, offset in zip(plan.tensors, plan.layout.offsets, strict=True) for u in units_of(plan, tensor, offset)]
    todo = [u for u in units if u.offset not in finished]
    body = sum(entry.nbytes for entry in plan.layout.entries)  # without what pads them
    assert encoder is None or not isinstance(checkpoint, StreamCheckpoint), "a stream does not give whole tensors"
    window: deque[tuple[Unit, Future[tuple[RawRows, int]]]] = deque()

    def collect() -> None:
        unit, future = window.popleft()
        file.put(unit.offset, *future.result(), stream.note() if stream else "")
        on_bytes(unit.tensor.name, file.written, body)

    stream = Streamed(plan, checkpoint, todo, journal.done) if isinstance(checkpoint, StreamCheckpoint) else None
    with PartFile(fd, journal) as file:
        on_bytes("", file.written, body)
        if encoder is not None:
            todo = encode_whole(plan, checkpoint, encoder, todo, file, lambda name: on_bytes(name, file.written, body))
        try:
            for unit, raw in stream or mapped(checkpoint, todo):
                window.append((unit, executor.submit(convert, job_of(plan, unit, raw))))
                if len(window) > 4 * workers:
                    collect()
            while window:
                collect()
        finally:
            for _, future in window:
                future.cancel()
    if stream:
        stream.finish()
    if file.written != body:
        raise OutputError("the file is not whole: fewer bytes were written than planned; report this as a bug")
