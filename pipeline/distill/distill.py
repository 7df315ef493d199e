"""Knowledge distillation: a student learns to say what a teacher says, and becomes a checkpoint that ``sprig quantize`` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.device.processor import cores
from agent.errors import CheckpointError, SprigError, UnsupportedError
from agent.files import exclusive, human_size
from pipeline.checkpoint.write import refuse_place
from pipeline.distill.data.lesson import TrainingSequence
from pipeline.distill.data.read import read_lessons
from pipeline.distill.memory import need_for_learning, need_for_weights, said_in_one_line
from pipeline.distill.options import DistillOptions
from pipeline.distill.pair import Learning, checkpoint_of, need_same_tokens, open_student, open_teacher
from pipeline.network.extra import need_train_extra

if TYPE_CHECKING:
    from pipeline.distill.loop import Course, DistillStep
    from pipeline.distill.processes import Processes
    from pipeline.distill.work import Position, WorkFolder

_HELD = 16  # sequences at most that are kept back for evaluation
_SHARE_HELD = 10  # one in so many

OnStep = Callable[["DistillStep"], None]
OnNote = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Distilled:
    """What a distillation did.

    Attributes:
        path: the folder of the checkpoint.
        before, after: evaluation loss on sequences that were not learned from, of the student as it came and as it is written.
        best_step, steps: the step that is written, and all.
        tokens, seconds: of the learning.
        learned: numbers that could change.
        parameters: of the student.
        bf16: whether it was computed in BF16.
    """

    path: Path
    before: float
    after: float
    best_step: int
    steps: int
    tokens: int
    seconds: float
    learned: int
    parameters: int
    bf16: bool

    @property
    def note(self) -> str:
        """One line for a person."""
        pace = self.tokens / max(self.seconds, 1e-9)
        said = f"evaluation loss {self.before:.4f} -> {self.after:.4f}, {self.tokens:,} tokens at {pace:.0f}/s"
        if self.best_step == 0:
            return f"nothing learned made it better, so the student is written as it came: {said}; try a lower rate or more text"
        return f"{said}; the best was step {self.best_step} of {self.steps}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {**asdict(self), "path": str(self.path)}


def distill(
    teacher: str,
    student: str,
    out: Path,
    *,
    data: Sequence[Path] = (),
    options: DistillOptions | None = None,
    resume: bool = False,
    threads: int | None = None,
    on_step: OnStep | None = None,
    on_note: OnNote | None = None,
    revision: str | None = None,
    token: str | None = None,
    offline: bool = False,
) -> Distilled:
    """Teach a student.

    Args:
        teacher: a checkpoint: folder, or model of the Hub.
        student: a checkpoint of the same tokens, or a folder with a config.json alone, whose weights are then drawn.
        out: the folder to write; it must not exist. ``OUT.part`` beside it holds an unfinished run.
        data: text files and chat transcripts; without them the teacher writes what is learned from.
        options: how.
        resume: go on with the unfinished run, if there is one.
        threads: of torch; by default one for each core.
        on_step, on_note: told how far it is, and what is good to know beforehand.
        revision: of the teacher on the Hub.
        token, offline: for the Hub.

    Raises:
        SprigError: torch is missing, teacher and student do not fit, the data has too little, the loss became no number, or the
            disk is full. What was done stays in ``OUT.part``.
        KeyboardInterrupt: with how to go on.
    """
    need_train_extra("sprig distill")
    options, report, say = options or DistillOptions(), on_step or (lambda step: None), on_note or (lambda text: None)
    import torch

    from pipeline.distill.loop import train
    from pipeline.distill.processes import Processes
    from pipeline.distill.work import WorkFolder

    work, processes = WorkFolder(out), Processes()
    refuse_place(work.out)
    torch.set_num_threads(threads or max(1, cores() // processes.count))
    master = open_teacher(teacher, revision=revision, token=token, offline=offline)
    pair = _Pair(master, open_student(student, master, token=token, offline=offline), options)
    with _begun(work, pair, data, resume, processes):
        sequences = _lessons(work, pair, data, processes, threads, report)
        course, close = _course(work, pair, sequences, processes, report, say)
        try:
            with said_in_one_line():
                position = train(course)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command with --resume goes on from what was saved") from None
        finally:
            close()
        return _finished(work, pair, course, position, processes)


class _Pair:
    """Teacher and student, with what follows from both."""

    def __init__(self, teacher: Learning, student: Learning, options: DistillOptions) -> None:
        from pipeline.network.build import is_encoder

        self.teacher, self.student, self.options = teacher, student, options
        self.encoder = is_encoder(teacher.config)
        self.vocabulary = need_same_tokens(teacher, student)
        self._need_width(teacher)
        self._need_width(student)
        if self.encoder != is_encoder(student.config):
            which = ("gives vectors", "tells tokens") if self.encoder else ("tells tokens", "gives vectors")
            raise UnsupportedError(f"{teacher.name} {which[0]} and {student.name} {which[1]}: both must be of one kind")
        if self.encoder and (options.top_k or options.language or options.recipe):
            raise SprigError(f"{teacher.name} tells no tokens: leave --top-k, --language and --for out, it teaches its vectors")

    def _need_width(self, model: Learning) -> None:
        longest = model.config.get("max_position_embeddings")
        if isinstance(longest, int) and 1 < longest < self.options.width:
            raise SprigError(
                f"{model.name} reads at most {longest} tokens, and a sequence has {self.options.width}: take a smaller --width"
            )

    def plan(self, data: Sequence[Path], processes: int) -> dict[str, Any]:
        """What tells this run from another."""
        return {
            **asdict(self.options), "teacher": self.teacher.identity(), "student": self.student.identity(),
            "data": [str(path) for path in data], "processes": processes,
            "torch": version("torch"), "transformers": version("transformers"),
        }  # fmt: skip

    def networks(self) -> tuple[Any, Any]:
        """The teacher and the student, in float32 on the CPU."""
        from pipeline.network.build import build, fresh

        need_for_weights(self.teacher, self.student)
        more: dict[str, Any] = {"encoder": self.encoder, "attention": "eager" if self.options.attention else None}
        with checkpoint_of(self.teacher) as tensors:
            teacher = build(self.teacher.config, tensors, **more)
        if self.student.source is None:
            return teacher, fresh(self.student.config, self.options.seed, **more)
        with checkpoint_of(self.student) as tensors:
            return teacher, build(self.student.config, tensors, **more)


@contextmanager
def _begun(work: WorkFolder, pair: _Pair, data: Sequence[Path], resume: bool, processes: Processes) -> Iterator[None]:
    """The work folder, locked against other runs."""
    if not processes.main:
        processes.wait()
        yield
        return
    work.begin(pair.plan(data, processes.count), resume)
    with exclusive(work.folder / "lock"):
        processes.wait()
        yield


def _lessons(
    work: WorkFolder, pair: _Pair, data: Sequence[Path], processes: Processes, threads: int | None, report: OnStep
) -> tuple[TrainingSequence, ...]:  # fmt: skip
    """The sequences, read once and kept. Raises SprigError when there are too few to learn from and to judge by."""
    from pipeline.distill.loop import DistillStep

    def written(done: int, total: int) -> None:
        report(DistillStep("write", min(1.0, done / total)))

    if processes.main and work.lessons() is None:
        has = pair.student.has_tokenizer and pair.student.source is not None
        own = pair.options.own
        folder = (pair.student if has and data and not own else pair.teacher).folder()
        found = read_lessons(folder, data, width=pair.options.width, own=own, threads=threads, on_progress=written)
        found = tuple(s for s in found if any(s.scored[1:]))
        if len(found) < 2:
            raise SprigError(
                f"the data has {len(found)} sequences to learn from, and two must be: one teaches, one judges; give more text"
            )
        if (largest := max(max(s.ids) for s in found)) >= pair.vocabulary:
            raise CheckpointError(
                f"the data has token {largest}, the models know {pair.vocabulary}; take the tokenizer that is theirs"
            )
        # By lot: the first ones judge, and files may be of a kind each.
        work.keep_lessons([found[i] for i in np.random.default_rng(pair.options.seed).permutation(len(found))])
    processes.wait()
    sequences = work.lessons()
    assert sequences is not None
    return sequences


def _course(
    work: WorkFolder, pair: _Pair, sequences: tuple[TrainingSequence, ...], processes: Processes, report: OnStep, say: OnNote
) -> tuple[Course, Callable[[], None]]:  # fmt: skip
    """All that a run needs, and what closes it."""
    from pipeline.distill.batches import steps_for
    from pipeline.distill.curves import Curves
    from pipeline.distill.learner import Learner, matched
    from pipeline.distill.loop import Course, course_batch
    from pipeline.distill.teacher import LiveTeacher
    from pipeline.distill.write import write_student, write_weights

    o = pair.options
    master, network = pair.networks()
    pairs = matched(_layers(network), _layers(master))
    _let_learn(network, o)
    if processes.main and not (work.best / "config.json").exists():
        write_student(work.best, network, pair.student, pair.teacher)
    processes.wait()
    if o.recipe is not None:
        from pipeline.distill.kinds import kinds_of
        from pipeline.distill.rounded import round_through

        round_through(network, kinds_of(work.best, o.recipe))
    width = int(master.config.get_text_config().hidden_size)
    learner = Learner(
        network, pairs, width, encoder=pair.encoder, hidden=bool(o.hidden), attention=bool(o.attention), seed=o.seed
    )
    live = LiveTeacher(
        master.to(processes.device), pairs, pair.vocabulary, o.temperature, pair.encoder, bool(o.hidden), bool(o.attention)
    )
    held = max(1, min(_HELD, len(sequences) // _SHARE_HELD))
    batch = course_batch(o.batch, processes.count)
    steps = None if o.minutes is not None else steps_for(sequences[held:], batch, o.seed, o.tokens)
    curves = Curves(work.curves) if processes.main else _NoCurves()
    course = Course(
        learner.to(processes.device).train(), live, sequences, held, steps, 0 if pair.encoder else pair.vocabulary, o, processes,
        work, curves, lambda: write_weights(work.best, network), report if processes.main else lambda step: None,
    )  # fmt: skip
    need_for_learning(
        sum(p.numel() for p in learner.parameters() if p.requires_grad), min(course.at_once, batch) * o.width * course.vocabulary
    )
    if o.top_k is not None:
        course = replace(course, teacher=_kept(work, course, live, processes, say))
    return course, curves.close


def _kept(work: WorkFolder, course: Course, live: Any, processes: Processes, say: OnNote) -> Any:
    """The teacher's likeliest tokens on the disk, its own weights out of memory."""
    from pipeline.distill.loop import DistillStep
    from pipeline.distill.teacher import TeacherFile

    file = TeacherFile(work.teacher, course.sequences, min(course.options.top_k or 0, course.vocabulary), course.vocabulary)
    if processes.main:
        if file.done() < len(course.sequences):
            say(f"the teacher's top {file.k} of {file.starts[-1]:,} predictions take {human_size(file.nbytes)} on the disk")
        file.fill(live, course.at_once, processes.device, lambda done, n: course.report(DistillStep("teacher", done / n)))
    processes.wait()
    return file.open(processes.device)


def _let_learn(network: Any, options: DistillOptions) -> None:
    """Give a gradient to what is to learn."""
    if options.lora is not None:
        from pipeline.distill.lora import add_changes

        add_changes(network, options.lora, options.seed)
    else:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_("pooler." not in name)  # a pooler is not asked
    if options.checkpointing:
        newer = getattr(network, "activation_checkpointing_enable", None)  # the same under its name since transformers 5.20
        (newer or network.gradient_checkpointing_enable)({"use_reentrant": False})


def _finished(work: WorkFolder, pair: _Pair, course: Course, position: Position, processes: Processes) -> Distilled:
    """Publish the best checkpoint."""
    from pipeline.distill.curves import draw
    from pipeline.distill.write import distilled_card

    parameters = list(course.learner.network.parameters())
    assert position.before is not None
    assert position.best is not None
    result = Distilled(
        work.out, position.before, position.best, position.best_step, position.step, position.tokens, position.seconds,
        sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters), bool(position.bf16),
    )  # fmt: skip
    if processes.main:
        draw(work.curves)
        o = pair.options
        facts = {
            "Learned from": f"{position.tokens:,} tokens in {position.step} steps, sequences of at most {o.width}",
            "Loss": f"{o.divergence} divergence at temperature {o.temperature:g}, {o.language:g} language model, "
            f"{o.hidden:g} hidden states, {o.attention:g} attention",
            "Evaluation loss": f"{position.before:.4f} before, {position.best:.4f} after",
            **({"Through the rounding of": o.recipe} if o.recipe else {}),
        }  # fmt: skip
        work.finish({"README.md": distilled_card(work.out.name, pair.student, pair.teacher, facts)})
    processes.wait()
    return result


def _layers(network: Any) -> int:
    return int(network.config.get_text_config().num_hidden_layers)


class _NoCurves:
    """For the processes that write nothing."""

    def add(self, step: int, values: Any) -> None: ...
    def close(self) -> None: ...
