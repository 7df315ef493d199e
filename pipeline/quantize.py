"""The one pass: each slab of rows is read, transformed, quantized and written, once.

The layout is known to the last byte beforehand (``preflight``), so every slab has its place in the file. Slabs are handed to
an executor and come back in order; what is written is noted in a journal; the file gets its name only when it is whole and
llama.cpp has read it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Unpack

from agent.device.machine import available_memory
from agent.engine.trial import TrialResult, trial
from agent.errors import BrokenOffError, CheckpointError, OutputError, RecipeError, SourceError, SprigError, UnsupportedError
from agent.files import exclusive, make_folder, publish, reserve
from agent.gguf.check import check
from agent.gguf.reader import Header
from agent.hub.download import OnBytes
from agent.models.file import writes_text
from agent.models.store import card_path
from agent.progress import OnProgress, Progress
from pipeline.budget.errors import Rounder
from pipeline.budget.spend import MakeCopy, foresee, spend
from pipeline.card import model_card, sprig_version
from pipeline.model import heads_equal
from pipeline.onepass.journal import Journal
from pipeline.onepass.order import CHUNK
from pipeline.onepass.take_over import take_over
from pipeline.onepass.tensors import write_tensors
from pipeline.preflight import PlanOptions, Preflight, Wishes, find_source, output_folder, plan_for, read_wishes
from pipeline.recipes.names import wanted_recipe
from pipeline.rounding.encoder import RoundedTensor, TensorEncoder, summary
from pipeline.rounding.on_grid import GridEncoder
from pipeline.sources.adapter import CONFIG
from pipeline.sources.checkpoint import Checkpoint, MappedCheckpoint
from pipeline.sources.foreign import Detour, find_detour
from pipeline.sources.sample import is_here
from pipeline.sources.source import Source, open_checkpoint, open_source
from pipeline.sources.stream import StreamCheckpoint

log = logging.getLogger(__name__)

_OF_SOURCE = ("base", "revision", "token", "offline", "stream", "threads", "context_length", "allow_requantize")
COMPUTED_IN = ("F32", "F16")
_COPY_SHARE = 0.25  # of the free memory: other models and second moments want theirs


class Judged(Protocol):
    """How far a file is from its source."""

    @property
    def line(self) -> str: ...
    def to_dict(self) -> dict[str, Any]: ...


class FileJudge(Protocol):
    """Compares a file with its original: a GGUF's path, or a model as ``quantize`` takes it. What that needs may lie ``beside``.

    It raises SprigError if the file must not be published.
    """

    def judge(
        self, file: Path, original: Path | str, *, beside: Path, options: PlanOptions, on_window: Callable[[int, int], None]
    ) -> Judged: ...


Judge = Callable[[Path, OnProgress], Judged]
Finish = Callable[[Path, OnProgress], tuple[str, ...]]  # gives one-line remarks for a person


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
        fidelity: how far the file is from its source, where a gate was set.
        rounding: how the encoder rounded each tensor that it looked at.
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
    fidelity: Judged | None = None
    rounding: tuple[RoundedTensor, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {
            **self.preflight.to_dict(),
            "path": str(self.path),
            "card": str(self.card),
            "seconds": {k: round(v, 3) for k, v in self.seconds.items()},
            "resumed": self.resumed,
            "fidelity": self.fidelity.to_dict() if self.fidelity else None,
            "notes": list(self.notes),
            **({"rounding": [decision.to_dict() for decision in self.rounding]} if self.rounding else {}),
        }


def quantize(
    model: str,
    recipe: str | None = None,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    finish: Finish | None = None,
    gate: FileJudge | None = None,
    executor: Executor | None = None,
    llama_cpp: Path | None = None,
    on_progress: OnProgress | None = None,
    **options: Unpack[PlanOptions],
) -> QuantizeResult:
    """Make a GGUF of a model in one pass.

    Args:
        model: a Hub id with optional @revision, a folder, or a GGUF in F32, F16, BF16 or Q8_0 (any with ``allow_requantize``).
        recipe: as ``pipeline.recipes.names.find_recipe`` reads it; by default what stands behind the model's name, else Q4_K_M;
            None where ``size`` or ``bpw`` says how large the file may be.
        out: the file to make; None puts it into the store.
        resume: keep what a killed run of the same job has written.
        finish: changes the finished file before it is judged, in place or by giving its path to another one of the same tensors.
        gate: judges the finished file before it is published, as ``pipeline.evaluate.gate.FidelityGate`` does.
        executor: runs the slabs instead of a pool of threads; it is not shut down.
        llama_cpp: a llama.cpp checkout, whose script converts what Sprig does not.
        on_progress: called now and then from this thread.
        options: see ``PlanOptions``.

    Raises:
        SprigError: it could not be done; nothing is published, and a finished file of that name stays as it was.
    """
    report = on_progress or (lambda progress: None)
    seconds: dict[str, float] = {}
    with ExitStack() as stack:
        with timed(seconds, "preflight"):
            wishes, source = read_wishes(wanted_recipe(model, recipe), options), find_source(model, options)
            plan = _plan_or_detour(source, wishes, out, llama_cpp)
            if isinstance(plan, Detour):
                converted = stack.enter_context(plan.convert(beside=output_folder(out)))
                plan = plan_for(open_source(str(converted)), wishes, out, origin=source)
        log.info("plan: %s of %s, %d tensors, %d bytes", plan.recipe.name, plan.source.name, len(plan.tensors), plan.size)
        judge = _judge_of(plan, model, options, gate) if gate else None
        with timed(seconds, "download"):
            checkpoint = _open(plan, report)
        stack.callback(checkpoint.close)
        tied = plan.model.tied_head
        if tied and not isinstance(checkpoint, StreamCheckpoint) and not heads_equal(checkpoint, tied):
            raise CheckpointError(
                f"config.json ties the head to the embedding, but {tied.head} differs from it; "
                "now that the weights are here, run the same command again and both are written"
            )
        workers = wishes.threads
        if executor is None:
            executor = stack.enter_context(ThreadPoolExecutor(workers, thread_name_prefix="quantize"))
        if wishes.budget:
            with timed(seconds, "measure"):
                original = model if plan.source is plan.origin else str(plan.source.path)
                plan = _spent(plan, wishes, checkpoint, partial(working_copy, original, options=options), executor, report, out)
        encoder = plan.encoder or (None if plan.stream else GridEncoder())  # a stream does not give whole tensors
        return _write(_Work(plan, checkpoint, executor, workers, report, seconds, encoder, finish, judge), resume)


def dry_run(
    model: str,
    recipe: str | None = None,
    out: Path | str | None = None,
    *,
    llama_cpp: Path | None = None,
    **options: Unpack[PlanOptions],
) -> Preflight | Detour:
    """Plan what ``quantize`` would do; a ``Detour`` says that a llama.cpp checkout's script would run first.

    Raises:
        SprigError: the first thing that would make the run fail.
    """
    wishes = read_wishes(wanted_recipe(model, recipe), options)
    plan = _plan_or_detour(find_source(model, options), wishes, out, llama_cpp)
    if wishes.budget is None or isinstance(plan, Detour):
        return plan
    with ExitStack() as stack:
        here = is_here(plan.source)
        checkpoint = stack.enter_context(_open(plan, lambda progress: None)) if here else None
        return plan_for(plan.source, foresee(plan, wishes, checkpoint, Rounder.of(plan.encoder)), out)


def _spent(
    plan: Preflight, wishes: Wishes, checkpoint: Checkpoint, make: MakeCopy, executor: Executor,
    report: OnProgress, out: Path | str | None,
) -> Preflight:  # fmt: skip
    """The plan with the types that the budget pays for."""
    chosen = spend(plan, wishes, checkpoint, make, executor, _stage(report, "measure"), Rounder.of(plan.encoder))
    if plan.encoder:
        plan.encoder.decisions.clear()  # those of the probes
    return plan_for(plan.source, chosen, out, origin=plan.origin)


def working_copy(
    model: str, out: Path, options: Mapping[str, Any], *, kinds: Sequence[str] = COMPUTED_IN, most: float = math.inf
) -> Path:
    """Make a GGUF of a model to compute with for a while, and give its path.

    Args:
        options: of ``quantize``; those that say which model it is and how it is read hold here too.
        kinds: types in the order in which they are wanted; llama.cpp computes with F32 nearly twice as fast as with F16 on a CPU
            without instructions for it. The first is taken that fits the disk, ``most`` bytes and a quarter of the free memory,
            else the last.

    Raises:
        SprigError: as ``quantize``.
    """
    kept: Any = {name: value for name, value in options.items() if name in _OF_SOURCE}
    most = min(most, _COPY_SHARE * available_memory())

    def fits(kind: str) -> bool:
        with suppress(OutputError):
            plan = dry_run(model, kind, out, **kept)
            return isinstance(plan, Preflight) and plan.size <= most
        return False

    kind = next(filter(fits, kinds[:-1]), kinds[-1])
    log.info("%s is computed with in %s", model, kind)
    return quantize(model, kind, out, **kept).path


def _plan_or_detour(source: Source, wishes: Wishes, out: Path | str | None, llama_cpp: Path | None) -> Preflight | Detour:
    try:
        return plan_for(source, wishes, out)
    except UnsupportedError as e:
        if llama_cpp is None or source.kind == "gguf" or source.adapter is not None:
            raise
        if wishes.stream:
            raise SourceError("--llama-cpp needs the whole model on this disk; leave --stream out") from None
        return find_detour(source, llama_cpp, str(e))


def _judge_of(plan: Preflight, model: str, options: PlanOptions, gate: FileJudge) -> Judge:
    """The gate, ready to be asked about the part file. Raises RecipeError at once if it can say nothing of this model."""
    if not writes_text(plan.model.keys):
        raise RecipeError(f"--gate: {plan.origin.named.name} gives vectors or scores and writes no text that could be compared")
    named = plan.source.named
    pinned = f"{named.repo_id}@{named.commit}" if named.kind == "hub" else model
    original = plan.source.path if plan.source.kind == "gguf" else None

    def judge(part: Path, report: OnProgress) -> Judged:
        def on_window(done: int, total: int) -> None:
            report(Progress("gate", done, total, "windows", plan.out.name))

        return gate.judge(part, original or pinned, beside=part.parent, options=options, on_window=on_window)

    return judge


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Put down how many seconds a stage takes that ends well."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
    log.info("%s took %.1f s", stage, seconds[stage])


def _open(plan: Preflight, report: OnProgress) -> Checkpoint:
    source = plan.source
    if source.kind == "gguf":
        assert source.path is not None
        return MappedCheckpoint(source.path.parent, plan.model.infos)
    return open_checkpoint(source, stream=plan.stream, on_progress=_stage(report, "download"))


def _stage(report: OnProgress, stage: str) -> OnBytes:
    return lambda item, done, total: report(Progress(stage, done, total, "bytes", item))


@dataclass(frozen=True, slots=True)
class _Work:
    """A plan and what carries it out."""

    plan: Preflight
    checkpoint: Checkpoint
    executor: Executor
    workers: int
    report: OnProgress
    seconds: dict[str, float]
    encoder: TensorEncoder | None
    finish: Finish | None = None
    judge: Judge | None = None


def _write(work: _Work, resume: bool) -> QuantizeResult:
    """Write the part file, check it and give it its name. If the run breaks off, the part stays only if --resume can use it."""
    plan, report = work.plan, work.report
    part = plan.out.with_name(plan.out.name + ".part")
    make_folder(plan.out.parent)
    rounding: tuple[RoundedTensor, ...] = ()
    with exclusive(part) as fd, ExitStack() as leftovers:
        leftovers.callback(part.unlink, missing_ok=True)
        try:
            fingerprint = _fingerprint(plan)
            journal = Journal(part.with_name(part.name + ".journal"), fingerprint, fd, resume=resume)
            leftovers.callback(journal.remove)
            with closing(journal):
                _fill(work, fd, part, journal)
                if not _unchanged(plan, fingerprint):
                    raise CheckpointError(
                        f"{plan.source.name} was changed while it was read; nothing was published, run it again"
                    )
                if work.encoder is not None:
                    rounding = tuple(work.encoder.decisions.values())
                report(Progress("check", 0, plan.size, "bytes", plan.out.name))
                with timed(work.seconds, "check"):
                    header, notes, spoken = _check(plan, part, fd)
                    notes += summary(rounding)
                report(Progress("check", plan.size, plan.size, "bytes", plan.out.name))
                if work.finish:
                    with timed(work.seconds, "finish"):
                        notes += work.finish(part, report)
                fidelity = None
                if work.judge:
                    with timed(work.seconds, "gate"):
                        fidelity = work.judge(part, report)
                with timed(work.seconds, "publish"):
                    card = _publish(plan, part, header, notes, fidelity)
        except KeyboardInterrupt:
            leftovers.pop_all()
            raise KeyboardInterrupt("the same command with --resume goes on from what was written") from None
        except BrokenOffError as e:
            leftovers.pop_all()
            raise BrokenOffError(f"{e}; --resume goes on from what was written") from None
        except OSError as e:
            raise OutputError(f"cannot write {part}: {e.strerror or e}; nothing was published") from None
    resumed = sum(slab.length for slab in journal.done)
    return QuantizeResult(
        plan.out, card, plan.size, work.seconds, plan.recipe.name, plan.types, (*plan.notes, *notes), plan, resumed,
        spoken.text, fidelity, rounding,
    )  # fmt: skip


def _fill(work: _Work, fd: int, part: Path, journal: Journal) -> None:
    """Write the header and all tensors; in a resumed part, only the slabs that it lacks."""
    if not journal.done:
        os.ftruncate(fd, 0)  # nothing of another job may show between the tensors
    reserve(fd, work.plan.size, part)
    os.pwrite(fd, work.plan.layout.header, 0)
    if copied := take_over(work.plan, part, fd, journal):
        log.info("%d bytes are as in a file of the same model", copied)
    with timed(work.seconds, "quantize"):
        on_bytes = _stage(work.report, "quantize")
        write_tensors(work.plan, work.checkpoint, work.executor, work.workers, fd, journal, on_bytes, work.encoder)


def _fingerprint(plan: Preflight) -> str:
    """A hash of all that determines the bytes: the header for the plan, the source for the weights."""
    digest = hashlib.sha256(plan.layout.header)
    identity: list[Any] = [sprig_version(), *_identity(plan.source)]
    if plan.source.adapter is not None:
        identity += [*_identity(plan.source.adapter), hashlib.sha256(plan.source.adapter.files.get(CONFIG, b"")).hexdigest()]
    identity += [plan.imatrix.sha256 if plan.imatrix else None, plan.stream, CHUNK]
    digest.update(json.dumps(identity).encode())
    digest.update(plan.source.files.get("config.json", b""))  # it says how packed weights are read
    return f"sprig journal 1 {digest.hexdigest()}"


def _identity(source: Source) -> list[Any]:
    """What changes when the weights of a source do."""
    identity: list[Any] = [source.kind, source.commit, [(w.name, w.size, w.sha256) for w in source.weights]]
    if source.kind != "hub" and source.path is not None:
        paths = [source.path] if source.kind == "gguf" else [source.path / w.name for w in source.weights]
        identity += [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    return identity


def _unchanged(plan: Preflight, fingerprint: str) -> bool:
    try:
        return _fingerprint(plan) == fingerprint
    except OSError:  # it is gone
        return False


def _check(plan: Preflight, part: Path, fd: int) -> tuple[Header, tuple[str, ...], TrialResult]:
    """Check the file as a device would, before it gets its name. The disk catches up meanwhile."""
    with ThreadPoolExecutor(1) as background:
        synced = background.submit(os.fsync, fd)
        try:
            header = check(part)
            probes = tuple(plan.model.probes)
            spoken = trial(part, probes=probes)
        except SprigError as e:
            raise OutputError(f"the finished file did not pass its check and was not published: {e}") from None
        synced.result()
    wrong = [p for p, ids in zip(probes, spoken.probe_ids, strict=True) if ids != plan.model.probes[p]]
    if not spoken.finite:
        raise OutputError("the finished file did not pass its check and was not published: llama.cpp computes NaN with it")
    if not wrong:
        return header, (), spoken
    differ = f"llama.cpp splits {len(wrong)} of {len(probes)} hard test strings into other tokens than the original"
    return header, (f"{differ} (first: {wrong[0]!r})",), spoken


def _publish(plan: Preflight, part: Path, header: Header, notes: Sequence[str], fidelity: Judged | None) -> Path:
    """Give card and file their names, the card first. Returns the card's path."""
    text = model_card(
        file=plan.out.name, size=plan.size, keys=header.keys, source=plan.origin, recipe=plan.recipe, types=plan.types,
        shapes=[t.shape for t in plan.tensors], notes=(*plan.notes, *notes), imatrix=plan.imatrix,
        fidelity=fidelity.line if fidelity else None,
    )  # fmt: skip
    card = card_path(plan.out)
    draft = card.with_name(card.name + ".part")
    draft.unlink(missing_ok=True)
    draft.write_bytes(text.encode("utf-8", "surrogateescape"))
    publish(draft, card)
    publish(part, plan.out)
    return card
