"""The one pass: each slab of rows is read, transformed, quantized and written, once.

The layout is known to the last byte beforehand (``preflight``), so every slab has its place in the file. Slabs are handed to
an executor and come back in order; what is written is noted in a journal; the file gets its name only when it is whole and
llama.cpp has read it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.device.machine import cores
from agent.engine.trial import TrialResult, trial
from agent.errors import BrokenOffError, CheckpointError, OutputError, SourceError, SprigError, UnsupportedError
from agent.files import exclusive, publish, reserve
from agent.gguf.check import check
from agent.gguf.reader import Header
from agent.gguf.types import F32
from agent.models.store import card_path
from pipeline.card import model_card, sprig_version
from pipeline.model import heads_equal
from pipeline.onepass.journal import Journal
from pipeline.onepass.order import CHUNK, Mapped, Streamed, Unit, units_of
from pipeline.onepass.part_file import PartFile
from pipeline.onepass.rows import SOURCE_TYPES, SlabJob, convert
from pipeline.preflight import Preflight, preflight
from pipeline.sources.checkpoint import Checkpoint, MappedCheckpoint, RawRows
from pipeline.sources.foreign import convert_with_llama_cpp
from pipeline.sources.source import open_checkpoint
from pipeline.sources.stream import StreamCheckpoint

log = logging.getLogger(__name__)

OnProgress = Callable[["Progress"], None]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage ("download", "quantize", "check") is, in bytes; ``item`` names the file or tensor."""

    stage: str
    done: int
    total: int
    item: str


@dataclass(frozen=True, slots=True)
class QuantizeResult:
    """A finished file.

    Attributes:
        path, card: the GGUF and the model card beside it.
        size: bytes.
        seconds: stage -> seconds.
        types: ggml type -> number of tensors.
        resumed: bytes that an earlier run had written.
        text: what the model said in its trial, untrusted; empty for an embedding model.
    """

    path: Path
    card: Path
    size: int
    seconds: Mapping[str, float]
    recipe: str
    types: Mapping[str, int]
    notes: tuple[str, ...]
    preflight: Preflight
    resumed: int
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {
            **self.preflight.to_dict(),
            "path": str(self.path),
            "card": str(self.card),
            "seconds": {k: round(v, 3) for k, v in self.seconds.items()},
            "resumed": self.resumed,
            "notes": list(self.notes),
        }


def quantize(
    model: str,
    recipe: str = "Q4_K_M",
    out: Path | str | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
    offline: bool = False,
    imatrix: Path | None = None,
    tensor_types: Sequence[tuple[str, str]] = (),
    pure: bool = False,
    output_type: str | None = None,
    embedding_type: str | None = None,
    stream: bool = False,
    resume: bool = False,
    threads: int | None = None,
    executor: Executor | None = None,
    llama_cpp: Path | None = None,
    on_progress: OnProgress | None = None,
) -> QuantizeResult:
    """Make a GGUF of a model in one pass.

    Args:
        resume: keep what a killed run of the same job has written.
        threads: workers; None takes the cores of this machine.
        executor: runs the slabs instead of a pool of threads; it is not shut down.
        on_progress: called now and then from this thread.
        (the others as in ``preflight``)

    Raises:
        SprigError: it could not be done; nothing is published, and a finished file of that name stays as it was.
    """
    report = on_progress or (lambda progress: None)
    seconds: dict[str, float] = {}
    start = time.perf_counter()

    def plan_for(what: str) -> Preflight:
        return preflight(
            what,
            recipe,
            out,
            revision=revision,
            token=token,
            offline=offline,
            imatrix=imatrix,
            tensor_types=tensor_types,
            pure=pure,
            output_type=output_type,
            embedding_type=embedding_type,
            stream=stream,
            threads=threads,
            llama_cpp=llama_cpp,
        )

    with ExitStack() as stack:
        try:
            plan = plan_for(model)
        except UnsupportedError:
            if llama_cpp is None or Path(model).expanduser().is_file():
                raise
            if stream:
                raise SourceError("--llama-cpp needs the whole model on this disk; leave --stream out") from None
            foreign = stack.enter_context(
                convert_with_llama_cpp(model, llama_cpp, revision=revision, token=token, offline=offline, out=out)
            )
            plan = plan_for(str(foreign))
        seconds["preflight"] = time.perf_counter() - start
        log.info("plan: %s of %s, %d tensors, %d bytes", plan.recipe.name, plan.source.name, len(plan.tensors), plan.size)
        with _timed(seconds, "download"):
            checkpoint = _open(plan, report)
        stack.callback(checkpoint.close)
        if plan.tied_head and not isinstance(checkpoint, StreamCheckpoint) and not heads_equal(checkpoint, plan.tied_head):
            raise CheckpointError(
                f"config.json ties the head to the embedding, but {plan.tied_head.head} differs from it; "
                "now that the weights are here, run the same command again and both are written"
            )
        if executor is None:
            executor = stack.enter_context(ThreadPoolExecutor(threads or cores(), thread_name_prefix="quantize"))
        return _write(plan, checkpoint, executor, threads or cores(), resume, report, seconds)


class _timed:
    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self.seconds, self.stage = seconds, stage

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.stage] = time.perf_counter() - self.start
        log.info("%s took %.1f s", self.stage, self.seconds[self.stage])


def _open(plan: Preflight, report: OnProgress) -> Checkpoint:
    source = plan.source
    if source.kind == "gguf":
        assert source.path is not None
        return MappedCheckpoint(source.path.parent, plan.infos)
    return open_checkpoint(
        source, stream=plan.stream, on_progress=lambda item, done, total: report(Progress("download", done, total, item))
    )


def _write(
    plan: Preflight,
    checkpoint: Checkpoint,
    executor: Executor,
    workers: int,
    resume: bool,
    report: OnProgress,
    seconds: dict[str, float],
) -> QuantizeResult:
    out = plan.out
    part = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputError(f"cannot make the folder {out.parent}: {e.strerror}") from None
    with exclusive(part) as fd:
        journal: Journal | None = None
        keep = False
        try:
            fingerprint = _fingerprint(plan)
            journal = Journal(part.with_name(part.name + ".journal"), fingerprint, fd, resume=resume)
            if not journal.done:
                os.ftruncate(fd, 0)  # nothing of another job may show between the tensors
            reserve(fd, plan.size, part)
            os.pwrite(fd, plan.layout.header, 0)
            with _timed(seconds, "quantize"):
                write_tensors(plan, checkpoint, executor, workers, fd, journal, report)
            if not _unchanged(plan, fingerprint):
                raise CheckpointError(f"{plan.source.name} was changed while it was read; nothing was published, run it again")
            report(Progress("check", 0, plan.size, out.name))
            with _timed(seconds, "check"):
                header, notes, spoken = _check(plan, part, fd)
            with _timed(seconds, "publish"):
                card = card_path(out)
                draft = card.with_name(card.name + ".part")
                draft.unlink(missing_ok=True)
                draft.write_bytes(_card(plan, header, notes).encode("utf-8", "surrogateescape"))
                publish(draft, card)
                publish(part, out)
            report(Progress("check", plan.size, plan.size, out.name))
        except KeyboardInterrupt:
            keep = True
            raise KeyboardInterrupt("the same command with --resume goes on from what was written") from None
        except BrokenOffError as e:
            keep = True
            raise BrokenOffError(f"{e}; --resume goes on from what was written") from None
        except OSError as e:
            raise OutputError(f"cannot write {part}: {e.strerror or e}; nothing was published") from None
        finally:
            if journal is not None:
                journal.close()
                if not keep:
                    journal.remove()
            if not keep and part.exists():
                part.unlink()
    done = sum(s.length for s in journal.done)
    return QuantizeResult(
        out,
        card,
        plan.size,
        seconds,
        plan.recipe.name,
        plan.types,
        (*plan.notes, *notes),
        plan,
        done,
        spoken.text,
    )


def _fingerprint(plan: Preflight) -> str:
    """Everything that determines the bytes: the header says the plan, the source says the weights."""
    digest = hashlib.sha256(plan.layout.header)
    source = plan.source
    identity: list[Any] = [sprig_version(), source.kind, source.commit, [(w.name, w.size, w.sha256) for w in source.weights]]
    if source.kind != "hub" and source.path is not None:
        paths = [source.path] if source.kind == "gguf" else [source.path / w.name for w in source.weights]
        identity += [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    identity += [plan.imatrix.sha256 if plan.imatrix else None, plan.stream, CHUNK]
    digest.update(json.dumps(identity).encode())
    return f"sprig journal 1 {digest.hexdigest()}"


def _unchanged(plan: Preflight, fingerprint: str) -> bool:
    try:
        return _fingerprint(plan) == fingerprint
    except OSError:  # it is gone
        return False


# The pass.


def write_tensors(
    plan: Preflight,
    checkpoint: Checkpoint,
    executor: Executor,
    workers: int,
    fd: int,
    journal: Journal | None = None,
    report: OnProgress = lambda progress: None,
) -> None:
    """All tensor data of the plan into an open file that has its header and its final size.

    Args:
        workers: how many slabs are worked on at a time; some more wait, so that a slow one does not hold up the rest.
        journal: what is done already, and where each slab is noted.

    Raises:
        SprigError: a weight or a slab is bad, or the source broke off.
    """
    done = journal.done if journal else []
    finished = {slab.offset for slab in done}
    units = [u for tensor, offset in zip(plan.tensors, plan.layout.offsets, strict=True) for u in units_of(plan, tensor, offset)]
    todo = [u for u in units if u.offset not in finished]
    body = plan.size - len(plan.layout.header)
    window: deque[tuple[Unit, Future[tuple[RawRows, int]]]] = deque()

    def collect() -> None:
        unit, future = window.popleft()
        file.put(unit.offset, *future.result(), source.note())
        report(Progress("quantize", file.written, body, unit.tensor.name))

    source = Streamed(plan, checkpoint, todo, done) if isinstance(checkpoint, StreamCheckpoint) else Mapped(checkpoint, todo)
    with PartFile(fd, journal) as file:
        try:
            for unit, raw in source:
                window.append((unit, executor.submit(convert, _job(plan, unit, raw))))
                if len(window) > 4 * workers:
                    collect()
            while window:
                collect()
        finally:
            for _, future in window:
                future.cancel()
    source.finish()
    if file.written != sum(entry.nbytes for entry in plan.layout.entries):
        raise OutputError("the file is not whole: fewer bytes were written than planned; report this as a bug")


def _job(plan: Preflight, unit: Unit, raw: RawRows) -> SlabJob:
    tensor = unit.tensor
    importance = plan.imatrix.of(tensor.name, tensor.shape) if plan.imatrix else None
    if importance is not None:
        matrix = tensor.shape[-2] if len(tensor.shape) > 2 else tensor.n_rows
        importance = np.ascontiguousarray(importance[unit.row // matrix])
    kind = SOURCE_TYPES[plan.infos[unit.reads[0][0]].dtype] if unit.reads else F32
    return SlabJob(
        tensor.name,
        raw,
        kind,
        tensor.row_length,
        plan.choices[tensor.name].type,
        unit.rows,
        tensor.column_order,
        tensor.function,
        importance,
    )


# The end.


def _check(plan: Preflight, part: Path, fd: int) -> tuple[Header, tuple[str, ...], TrialResult]:
    """What a device would ask of the file, before it gets its name. The disk catches up meanwhile."""
    with ThreadPoolExecutor(1) as background:
        synced = background.submit(os.fsync, fd)
        try:
            header = check(part)
            probes = tuple(plan.probes)
            spoken = trial(part, probes=probes)
        except SprigError as e:
            raise OutputError(f"the finished file did not pass its check and was not published: {e}") from None
        synced.result()
    wrong = [p for p, ids in zip(probes, spoken.probe_ids, strict=True) if ids != plan.probes[p]]
    notes = []
    if wrong:
        notes.append(
            f"llama.cpp splits {len(wrong)} of {len(probes)} hard test strings into other tokens than the original "
            f"(first: {wrong[0]!r})"
        )
    if not spoken.finite:
        raise OutputError("the finished file did not pass its check and was not published: llama.cpp computes NaN with it")
    return header, tuple(notes), spoken


def _card(plan: Preflight, header: Header, notes: Sequence[str]) -> str:
    return model_card(
        file=plan.out.name, size=plan.size, keys=header.keys, source=plan.source, recipe=plan.recipe, types=plan.types,
        shapes=[t.shape for t in plan.tensors], notes=(*plan.notes, *notes), imatrix=plan.imatrix,
    )  # fmt: skip
