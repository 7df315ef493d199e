"""The loop: AdamW with warm-up and a cosine, evaluation now and then, the best weights kept, a state to go on from exactly.

What a step does follows from its number alone: its sequences, its share of the run, the seed of whatever is drawn in it. So a run
that was killed needs its weights, its optimizer and its position back, and then gives the same bytes as one that was not.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from agent.errors import SprigError
from pipeline.distill.batches import TrainingBatch, groups, in_order, n_scored, to_batch
from pipeline.distill.data.lesson import TrainingSequence
from pipeline.distill.learner import Learner
from pipeline.distill.loss import apart, attended, distilled, embedding, language, turned
from pipeline.distill.options import DistillOptions
from pipeline.distill.processes import Processes
from pipeline.distill.teacher import Taught
from pipeline.distill.work import Position, WorkFolder

log = logging.getLogger(__name__)

CHECKS = 10  # evaluations of a run, where each stands for so many steps at least
STEPS_OF_CHECK = 5
SECONDS_BETWEEN_STATES = 60.0
_WARM = 0.03  # of the run
_LOGITS = 1 << 25  # numbers of logits that are computed at once
_CLIP = 1.0  # length of a step's gradient at most
_GAIN = 1.2  # times that BF16 must be faster to be taken
_TRIED, _TRIES = 64, 3  # tokens that both are tried with, and how often
Parts = dict[str, float]  # the losses by name; "loss" is what is learned from


class Teacher(Protocol):
    """Who says of a batch what the student should."""

    def teach(self, batch: TrainingBatch) -> Taught: ...


class CurveWriter(Protocol):
    """Where the losses go."""

    def add(self, step: int, values: Mapping[str, float]) -> None: ...


@dataclass(frozen=True, slots=True)
class DistillStep:
    """How far a run is, for who watches.

    Attributes:
        stage: "write" while the teacher writes what is learned from, "teacher" while its answers are gathered, "learn", or
            "evaluate".
        share: of the stage.
        step, tokens, loss: of the learning.
        tokens_per_second, seconds_left: by the pace so far.
    """

    stage: str
    share: float
    step: int = 0
    tokens: int = 0
    loss: float = math.nan
    tokens_per_second: float = 0.0
    seconds_left: float = math.inf


@dataclass(frozen=True, slots=True)
class Course:
    """A run, ready to begin.

    Attributes:
        sequences: the held-out ones first.
        held: how many these are.
        steps: of the run; None leaves the end to the time.
        vocabulary: tokens that both know; 0 of an encoder.
        keep_best: called when the student is better than before.
    """

    learner: Learner
    teacher: Teacher
    sequences: Sequence[TrainingSequence]
    held: int
    steps: int | None
    vocabulary: int
    options: DistillOptions
    processes: Processes
    work: WorkFolder
    curves: CurveWriter
    keep_best: Callable[[], None]
    report: Callable[[DistillStep], None]

    @property
    def at_once(self) -> int:
        """Sequences that are computed together."""
        return max(1, _LOGITS // (max(self.vocabulary, 1024) * self.options.width))


def train(course: Course) -> Position:
    """Learn until the end, from where the work folder says that the run is.

    Raises:
        SprigError: the loss is no number; the best checkpoint so far stays in the work folder.
        OutputError: the disk is full; what was written before stays.
    """
    parameters = {name: p for name, p in course.learner.named_parameters() if p.requires_grad}
    optimizer = _optimizer(parameters)
    position = course.work.restore(parameters, optimizer)
    wrapped = course.processes.prepare(course.learner)
    begun = time.monotonic() - position.seconds
    if position.bf16 is None:
        position = replace(position, bf16=_precision(course))
    if position.before is None:
        position = _evaluated(course, position, 0.0)
        begun, position = time.monotonic(), replace(position, before=position.best)
    saved, took = time.monotonic(), 0.0
    checks = CHECKS if course.steps is None else max(1, min(CHECKS, course.steps // STEPS_OF_CHECK))
    if position.step:
        log.info("going on behind step %d", position.step)
    while (share := _share(course, position)) < 1:
        parts, tokens = _step(course, wrapped, optimizer, position, share)
        seconds = course.processes.agree(time.monotonic() - begun)
        position = replace(position, step=position.step + 1, tokens=position.tokens + tokens, seconds=seconds)
        now = _share(course, position)
        _tell(course, position, parts, now)
        if int(now * checks) > int(share * checks):
            position = _evaluated(course, position, now)
        if now < 1 and time.monotonic() - saved > max(SECONDS_BETWEEN_STATES, 20 * took) and course.processes.main:
            took, saved = course.work.save(parameters, optimizer, position), time.monotonic()
    return position


def evaluate(course: Course, bf16: bool) -> Parts:
    """The losses on the held-out sequences."""
    learner, count = course.learner, course.processes.count
    mine = range(course.processes.rank, course.held, count)
    scored = sum(n_scored(s) for s in course.sequences[: course.held])
    total: Parts = dict.fromkeys(_names(course), 0.0)
    learner.eval()
    with torch.no_grad():
        for group in groups(mine, course.at_once):
            _, parts = _objective(course, learner, to_batch(course.sequences, group, course.processes.device), bf16,
                                  scored, course.held)  # fmt: skip
            total = {name: total[name] + parts[name] for name in total}
    learner.train()
    return course.processes.total(total)


def _optimizer(parameters: Mapping[str, Any]) -> Any:
    matrices = [p for p in parameters.values() if p.ndim > 1]
    others = [p for p in parameters.values() if p.ndim < 2]
    kinds = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    fused = {p.device.type for p in parameters.values()} <= {"cpu", "cuda"}  # one pass over the memory instead of a dozen
    return torch.optim.AdamW([kind for kind in kinds if kind["params"]], lr=0.0, betas=(0.9, 0.95), fused=fused)


def _share(course: Course, position: Position) -> float:
    """How much of the run is done."""
    if course.steps is not None:
        return position.step / course.steps
    assert course.options.minutes is not None
    return position.seconds / (60 * course.options.minutes)


def _rate(course: Course, position: Position, share: float) -> float:
    """The learning rate of a step: up in a line, then down in half a cosine."""
    warm = share + 1 / course.steps if course.steps is not None else share + 1e-3
    return course.options.top_rate * min(1.0, warm / _WARM) * (1 + math.cos(math.pi * min(1.0, share))) / 2


def _step(course: Course, wrapped: Any, optimizer: Any, position: Position, share: float) -> tuple[Parts, int]:
    """One step of the optimizer; the losses before it, and the tokens that were read."""
    options, processes = course.options, course.processes
    training = course.sequences[course.held :]
    batch = course_batch(options.batch, processes.count)
    chosen = [course.held + i for i in in_order(len(training), batch, options.seed, position.step)]
    scored = sum(n_scored(course.sequences[n]) for n in chosen)
    mine = list(groups(chosen[processes.rank :: processes.count], course.at_once))
    torch.manual_seed((options.seed * 1_000_003 + position.step) * processes.count + processes.rank)
    total: Parts = dict.fromkeys(_names(course), 0.0)
    for group in mine:
        tensors = to_batch(course.sequences, group, processes.device)
        with processes.apart(wrapped) if group is not mine[-1] else torch.enable_grad():
            loss, parts = _objective(course, wrapped, tensors, bool(position.bf16), scored, len(chosen))
            (loss * processes.count).backward()  # several processes take the mean of their gradients
        total = {name: total[name] + parts[name] for name in total}
    total = processes.total(total)
    length = torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], _CLIP)
    if not math.isfinite(total["loss"]) or not math.isfinite(float(length)):
        raise _no_number(course, position)
    for kind in optimizer.param_groups:
        kind["lr"] = _rate(course, position, share)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, sum(len(course.sequences[n].ids) for n in chosen)


def course_batch(batch: int, processes: int) -> int:
    """Sequences of a step: as many for each process."""
    return -(-batch // processes) * processes


def _names(course: Course) -> tuple[str, ...]:
    o = course.options
    more = [name for name, weight in (("hidden", o.hidden), ("attention", o.attention)) if weight]
    return ("loss", *(("embedding", "last") if course.learner.encoder else ("divergence", "language")), *more)


def _objective(
    course: Course, learner: Any, batch: TrainingBatch, bf16: bool, scored: int, sequences: int
) -> tuple[Any, Parts]:  # fmt: skip
    """The loss of a part of a step, weighted so that the parts of a step add up to the step's mean; and its parts."""
    o, share = course.options, len(batch.numbers) / sequences
    with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=bf16):
        taught = course.teacher.teach(batch)
        said = learner(batch.ids, batch.mask)
    parts: dict[str, Any] = {}
    if course.learner.encoder:
        ours, theirs = said["last"].float(), taught.last.float()
        parts["embedding"] = share * turned(embedding(theirs, batch.mask), embedding(ours, batch.mask))
        parts["last"] = share * apart(theirs, ours, batch.mask)
        loss = parts["embedding"] + parts["last"]
    else:
        logits = said["logits"].flatten(0, 1)[batch.rows, : course.vocabulary].float()
        parts["divergence"] = distilled(taught.logs, logits, taught.ids, o.temperature, o.divergence).sum() / scored
        parts["language"] = language(logits, batch.targets).sum() / scored
        loss = (1 - o.language) * parts["divergence"] + o.language * parts["language"]
    if o.hidden:
        pairs = list(zip(taught.hidden, said["hidden"], strict=True))
        parts["hidden"] = share * sum(apart(t.float(), s.float(), batch.mask) for t, s in pairs) / len(pairs)
        loss = loss + o.hidden * parts["hidden"]
    if o.attention:
        maps = list(zip(taught.attention, said["attention"], strict=True))
        parts["attention"] = share * sum(attended(t, s, batch.mask) for t, s in maps) / len(maps)
        loss = loss + o.attention * parts["attention"]
    return loss, {"loss": float(loss.detach()), **{name: float(value.detach()) for name, value in parts.items()}}


def _evaluated(course: Course, position: Position, share: float) -> Position:
    """Ask the held-out sequences, and keep the student when it is the best so far."""
    found = evaluate(course, bool(position.bf16))
    if not math.isfinite(found["loss"]):
        raise _no_number(course, position)
    if course.processes.main:
        course.curves.add(position.step, {f"evaluation/{name}": value for name, value in found.items()})
    course.report(DistillStep("evaluate", share, position.step, position.tokens, found["loss"]))
    log.info("step %d: evaluation loss %.4f", position.step, found["loss"])
    if position.best is not None and found["loss"] >= position.best:
        return position
    if course.processes.main:
        course.keep_best()
    course.processes.wait()
    return replace(position, best=found["loss"], best_step=position.step)


def _tell(course: Course, position: Position, parts: Parts, share: float) -> None:
    if not course.processes.main:
        return
    course.curves.add(position.step, {f"train/{name}": value for name, value in parts.items()})
    left = position.seconds * (1 - share) / share if share > 0 else math.inf
    pace = position.tokens / max(position.seconds, 1e-9)
    course.report(DistillStep("learn", min(1.0, share), position.step, position.tokens, parts["loss"], pace, max(0.0, left)))


def _no_number(course: Course, position: Position) -> SprigError:
    kept = "nothing was learned yet"
    if position.best is not None:
        kept = f"the best so far (evaluation loss {position.best:.4f}, step {position.best_step}) is kept in {course.work.best}"
    return SprigError(
        f"the loss is not a number any more in step {position.step + 1}; {kept}. Use that, or remove {course.work.folder} and "
        f"begin again with a rate below {course.options.top_rate:g}"
    )


def _precision(course: Course) -> bool:
    """Whether to compute in BF16: as asked, or as is faster here."""
    asked, device = course.options.bf16, course.processes.device
    if asked is not None:
        return asked
    if device.type != "cpu":
        return bool(torch.cuda.is_bf16_supported()) if device.type == "cuda" else False
    first = course.sequences[0]
    batch = to_batch([TrainingSequence(first.ids[:_TRIED], first.scored[:_TRIED])], [0], device)
    seconds = {False: math.inf, True: math.inf}
    for bf16 in (False, True) * _TRIES:  # the first time is not typical
        begun = time.monotonic()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            said = course.learner(batch.ids, batch.mask)
        said["last" if course.learner.encoder else "logits"].float().square().mean().backward()
        seconds[bf16] = min(seconds[bf16], time.monotonic() - begun)
    course.learner.zero_grad(set_to_none=True)
    log.info("a step takes %.2f s in float32, %.2f s in BF16", seconds[False], seconds[True])
    return bool(course.processes.agree(float(seconds[True] * _GAIN < seconds[False])))
