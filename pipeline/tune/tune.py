"""Learns the scales, mins and norms of a finished GGUF end to end, so that it says more nearly what the original says.

Codes and types stay, so the file is as large and as fast as before and loads wherever it loaded. The original says once what it
thinks of the text; a model with the GGUF's weights then learns from that in torch, and the tuned file is measured in llama.cpp on
windows that it did not learn from. What is not better there by more than its error is left as it was.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.device.processor import cores
from agent.errors import CheckpointError, UnsupportedError
from agent.files import atomic_write, publish
from agent.gguf.check import check
from agent.progress import OnProgress, Progress
from pipeline.forward.measures import standard_error
from pipeline.forward.process import ForwardProcess
from pipeline.model import from_checkpoint
from pipeline.network.extra import need_train_extra
from pipeline.recipes.names import find_recipe
from pipeline.sources.base_model import open_model
from pipeline.sources.source import Source, open_checkpoint, read_config
from pipeline.tune.windows import FEWEST, Lessons, cut
from pipeline.tune.write import rewritten

if TYPE_CHECKING:
    from pipeline.tune.student import Student
    from pipeline.tune.train import Learned, Lesson, PerWindow

WIDTH = 256  # tokens of a window
_VALIDATION = 8  # windows
FEWEST_TOKENS = 2 * (_VALIDATION + FEWEST) * WIDTH  # twice what must be: windows of other lengths leave rests over
_TEACHER_SHARE = 0.2  # of the time
_LLAMA_PASS = 0.5  # of a pass in torch: what llama.cpp takes for a window


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What a tuning did.

    Attributes:
        path: the file.
        tuned: whether it was changed; if not, it is the GGUF as it was.
        before, after: mean KL divergence from the original on the validation windows, in llama.cpp, in nats per token.
        error: the standard error over windows of their difference; the three are None where the time was over before a step.
        windows: of validation.
        steps, tokens, seconds: of the learning itself.
        total_seconds: of everything.
        learned: numbers that were learned.
    """

    path: Path
    tuned: bool
    before: float | None
    after: float | None
    error: float | None
    windows: int
    steps: int
    tokens: int
    seconds: float
    total_seconds: float
    learned: int

    @property
    def note(self) -> str:
        """One line for a person."""
        if self.before is None or self.after is None or self.error is None:
            return "not tuned: the time was over before a step; give it more --tune-minutes"
        found = (
            f"KL divergence on {self.windows} windows {self.before:.4f} -> {self.after:.4f} "
            f"(difference {self.after - self.before:+.4f} +- {self.error:.4f})"
        )
        if self.tuned:
            return f"tuned on {self.tokens:,} tokens in {self.seconds:.0f} s: {found}"
        return f"the tuning did not make it better by more than its error and was left out: {found}; give it more minutes or text"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {**asdict(self), "path": str(self.path)}


def tune(
    gguf: Path,
    model: str | Source,
    out: Path,
    *,
    texts: Sequence[str | tuple[int, ...]],
    minutes: float = 4.0,
    steps: int | None = None,
    width: int = WIDTH,
    seed: int = 0,
    threads: int | None = None,
    on_progress: OnProgress = lambda step: None,
) -> TuneResult:
    """Make a tuned copy of a GGUF.

    Args:
        gguf: the finished file.
        model: the checkpoint that it was made of: a folder, a Hub id, or a source that is open already.
        out: the file to write; it may be ``gguf`` itself.
        texts: to learn from and to judge by, as text or as token ids, apart from any text that measures the result.
        minutes: for everything; the last step may pass it. Where they do not suffice for a step, the GGUF stays as it is.
        steps: learn so many steps instead, whatever time they take, so that a run can be repeated to the bit.
        width: tokens of a window.
        seed: of the order of windows.
        threads: of the computation; by default one for each core.
        on_progress: called now and then.

    Raises:
        SprigError: torch is missing, the text is too short, the GGUF is not made of this model, or transformers does not
            compute what llama.cpp does; nothing is written then.
    """
    begun = time.monotonic()
    need_train_extra("--encoder tune")
    source = _checkpoint(model)
    plan = _Plan(gguf, source, begun + 60 * minutes, steps, width, seed, threads or cores(), on_progress)
    with ForwardProcess(gguf, n_ctx=width, n_outputs=width, threads=plan.threads) as process:
        lessons = cut(process, texts, width=width, validation=_VALIDATION, seed=seed)
        try:
            student, validation, training = _students(plan, lessons)
        except _TimeOverError:
            return _untouched(gguf, out, len(lessons.validation), time.monotonic() - begun)
        on_progress(Progress.of_share("check", 0))
        asked = time.monotonic() - process.load_seconds
        before = _measured(process, validation)
        on_progress(Progress.of_share("check", 1))
    learned = _learn(plan, student, training, validation, before, time.monotonic() - asked)
    if not learned.steps:
        return _untouched(gguf, out, len(validation), time.monotonic() - begun)
    after = _publish_if_better(plan, out, student, validation, before)
    difference = after - before
    return TuneResult(
        out, _is_better(difference), float(before.mean()), float(after.mean()), standard_error(difference), len(before),
        learned.steps, learned.tokens, learned.seconds, time.monotonic() - begun, student.learned,
    )  # fmt: skip


def _publish_if_better(plan: _Plan, out: Path, student: Student, validation: Sequence[Lesson], before: PerWindow) -> PerWindow:
    """Measure the tuned copy in llama.cpp, and give it its name if it is better; else ``out`` is the GGUF as it was."""
    with rewritten(plan.gguf, out, student.changed()) as part:
        plan.report(Progress.of_share("check", 0))
        with ForwardProcess(part, n_ctx=plan.width, n_outputs=plan.width, threads=plan.threads) as process:
            after = _measured(process, validation)
        if _is_better(after - before):
            publish(part, out)
        elif out.absolute() != plan.gguf.absolute():
            shutil.copyfile(plan.gguf, part)
            publish(part, out)
    plan.report(Progress.of_share("check", 1))
    return after


def _is_better(difference: PerWindow) -> bool:
    return bool(difference.mean() < -2 * standard_error(difference))


class _TimeOverError(Exception):
    """There is no time for a single step."""


def _untouched(gguf: Path, out: Path, windows: int, seconds: float) -> TuneResult:
    if out.absolute() != gguf.absolute():
        atomic_write(out, gguf.read_bytes())
    return TuneResult(out, False, None, None, None, windows, 0, 0, 0.0, seconds, 0)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be done, and by when (of time.monotonic)."""

    gguf: Path
    source: Source
    deadline: float
    steps: int | None
    width: int
    seed: int
    threads: int
    report: OnProgress


def _checkpoint(model: str | Source) -> Source:
    source = open_model(model) if isinstance(model, str) else model
    if source.kind == "gguf":
        raise UnsupportedError(f"{source.name} is a GGUF; a tuning learns from the checkpoint, a folder or a model of the Hub")
    return source


def _students(plan: _Plan, lessons: Lessons) -> tuple[Student, list[Lesson], list[Lesson]]:
    """Ask the original about the windows, then give the network the GGUF's weights; validation and training windows."""
    import torch

    from pipeline.network.build import build
    from pipeline.tune.student import Student, read_bytes
    from pipeline.tune.train import AT_A_STEP, teach

    torch.set_num_threads(plan.threads)
    header = check(plan.gguf)
    model = from_checkpoint(plan.source, find_recipe("F32"))
    with open_checkpoint(plan.source) as checkpoint:
        network = build(read_config(plan.source), checkpoint)
    if torch.cuda.is_available():
        network.to("cuda")
    n = len(lessons.validation)
    windows = (*lessons.validation, *lessons.training)[: None if plan.steps is None else n + AT_A_STEP * plan.steps]
    until = time.monotonic() + _TEACHER_SHARE * (plan.deadline - time.monotonic())

    least, passes = n + AT_A_STEP, 2 * n + 2 * _LLAMA_PASS * n + 3 * AT_A_STEP  # judged before and after, and a step

    begun: list[float] = []  # of each window; the first pass warms up, and tells nothing of the others

    def short(done: int, more: float) -> bool:
        """Whether the time does not suffice for so many passes more, by those that were made."""
        pace = (begun[-1] - begun[1]) / (done - 1) if done > 1 else 0.0
        return begun[-1] + more * pace > plan.deadline

    def enough(done: int) -> bool:
        begun.append(time.monotonic())
        plan.report(Progress.of_share("teacher", done / len(windows), f"{done} windows"))
        if plan.steps is not None:
            return False
        return short(done, passes) if done < least else short(done, passes + 1) or (done >= 2 * n and begun[-1] > until)

    told = list(teach(network, windows, enough))
    plan.report(Progress.of_share("teacher", 1, f"{len(told)} windows"))
    if len(told) < min(least, len(windows)):
        raise _TimeOverError
    student = Student(network.cpu(), model, header, read_bytes(plan.gguf))
    if torch.cuda.is_available():
        network.to("cuda")
    return student, told[:n], told[n:]


def _measured(process: ForwardProcess, validation: Sequence[Lesson]) -> PerWindow:
    """The mean KL divergence of each window, of the file as llama.cpp computes it."""
    from pipeline.tune.divergence import divergence_of

    return np.array([divergence_of(process.logits(list(one.ids)), one.teacher).mean() for one in validation])


def _learn(
    plan: _Plan, student: Student, training: Sequence[Lesson], validation: Sequence[Lesson], measured: PerWindow, spare: float
) -> Learned:
    """Train; ``spare`` seconds of the time are left for what comes after."""
    from pipeline.tune.divergence import blind
    from pipeline.tune.train import Allowance, judge, train

    begun = time.monotonic()
    before = judge(student.network, validation)
    _same(plan, before, measured, float(np.mean([blind(one.teacher, student.vocabulary) for one in validation])))
    spare += time.monotonic() - begun
    allowance = Allowance(plan.deadline - spare, plan.steps)

    def on_step(share: float, loss: float) -> None:
        plan.report(Progress.of_share("tune", share, f"KL divergence {loss:.4f}"))

    learned = train(student.network, training, validation, before, allowance, seed=plan.seed, on_step=on_step)
    plan.report(Progress.of_share("tune", 1, f"{learned.steps} steps"))
    return learned


def _same(plan: _Plan, computed: PerWindow, measured: PerWindow, blind: float) -> None:
    """Refuse a GGUF that says nothing like the original, and a model that torch and llama.cpp compute differently."""
    name = plan.gguf.name
    ours, theirs = float(computed.mean()), float(measured.mean())
    if not theirs < blind:
        raise CheckpointError(
            f"{name} is as far from {plan.source.name} as blind guessing is (KL divergence {theirs:.2f}): name the model that it "
            "is made of"
        )
    if not abs(ours - theirs) < 0.02 + 0.3 * theirs:
        raise UnsupportedError(
            f"transformers and llama.cpp do not compute the same with {name} (KL divergence {ours:.3f} and {theirs:.3f}), so "
            "nothing can be learned for it; --encoder gptq does without"
        )
