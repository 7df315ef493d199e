"""From a model and a size to the best file of that size that the time allows: planned, carried out, compared, published."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agent.device.machine import available_memory
from agent.device.processor import cores
from agent.errors import UnsupportedError
from agent.files import atomic_write, human_size
from agent.gguf.types import TYPES_BY_NAME
from agent.home import models
from agent.models.file import writes_text
from agent.text.duration import told_time
from pipeline.compress.budget import ByteBudget, byte_budget, refuse_budget
from pipeline.compress.choose import choose_way
from pipeline.compress.forecast import learn_seconds
from pipeline.compress.plan import COMMANDS, WHOLE, CompressPlan, WayDown, plan_text
from pipeline.compress.propose import Proposal, propose, types_of, way_shape, with_learning
from pipeline.compress.publish import publish_choice
from pipeline.compress.report import Compressed, Foreseen, write_page
from pipeline.compress.run import OnStage, at_work, refuse_full_disk, run_job
from pipeline.compress.shape import ModelShape
from pipeline.compress.stage import StageRunner, run_here
from pipeline.compress.stages import CONTEXT, JobFacts, stages_of
from pipeline.compress.texts import DividedTexts, divide
from pipeline.evaluate.report.write import check_folder
from pipeline.preflight import Preflight
from pipeline.quantize import dry_run
from pipeline.recipes.names import find_type
from pipeline.steps.commands import command_options
from pipeline.steps.options import CommandOptions

_REPORT = "report.json"


def compress(
    plan: CompressPlan,
    *,
    out: Path | str | None = None,
    work: Path | None = None,
    report: Path | None = None,
    runner: StageRunner = run_here,
    on_plan: Callable[[Foreseen], None] = lambda foreseen: None,
    on_stage: OnStage = lambda *_: None,
    on_line: Callable[[str, str], None] = lambda stage, line: None,
) -> Compressed:
    """Carry out a plan. What an earlier run of it finished is not done again, whatever ended that run.

    Args:
        plan: see ``CompressPlan``; ``read_compress_plan`` reads one.
        out: the file to make, or a folder that exists; by default it goes into the store.
        work: where everything else goes; by default beside the file.
        report: a folder for a page with tables and plots.
        runner: carries out a stage.
        on_plan: called with the plan before anything runs.
        on_stage, on_line: progress.

    Raises:
        SprigError: it could not be done; what was finished is kept.
        KeyboardInterrupt: the same.
    """
    if report is not None:
        check_folder(report)
    commands = _commands()
    begun = _Begun.of(plan, out, work)
    with at_work(begun.work):
        foreseen = begun.foresee(commands)
        begun.texts.write()
        refuse_full_disk(foreseen.job, foreseen.work)
        atomic_write(foreseen.work / "plan.toml", plan_text(foreseen.plan, foreseen.notes, foreseen.work))
        on_plan(foreseen)
        answers = run_job(foreseen.job, foreseen.work, runner, on_stage=on_stage, on_line=on_line)
        choice = choose_way(foreseen.job.ways, answers)
        chosen = next(one for one in foreseen.job.ways if one.way.name == choice.chosen)
        made = foreseen.job.stages[chosen.quantize].place(foreseen.work)
        done = Compressed(foreseen, foreseen.out, foreseen.out, made.stat().st_size, choice, answers)
        done = replace(done, card=publish_choice(made, foreseen.out, done.story()))
        if report is not None:
            done = replace(done, page=write_page(done, report))
        atomic_write(foreseen.work / _REPORT, json.dumps(done.to_dict(), indent=1, default=str) + "\n")
    return done


def foresee(plan: CompressPlan, *, out: Path | str | None = None, work: Path | None = None) -> Foreseen:
    """What ``compress`` would do; nothing is written.

    Raises:
        SprigError: the first thing that would make it fail.
    """
    return _Begun.of(plan, out, work).foresee(_commands())


def _commands() -> Mapping[str, CommandOptions]:
    return {name: command_options(name) for name in COMMANDS}


@dataclass(frozen=True, slots=True)
class _Begun:
    """A plan and what is known of its model."""

    plan: CompressPlan
    shape: ModelShape
    budget: ByteBudget
    cuttable: bool
    context: int
    line: tuple[str, ...]
    out: Path
    work: Path
    texts: DividedTexts

    @classmethod
    def of(cls, plan: CompressPlan, out: Path | str | None, work: Path | None) -> _Begun:
        for name in types_of(plan):
            if name not in TYPES_BY_NAME:
                find_type(name, "[quantize] types")
        preflight = dry_run(plan.model, "Q8_0", _SOMEWHERE, **plan.source)  # type: ignore[arg-type]
        if not isinstance(preflight, Preflight) or not writes_text(preflight.model.keys):
            raise UnsupportedError(
                f"{plan.model} writes no text that could be compared, so that no candidate can be chosen by measurement; "
                "take sprig quantize with a recipe (-q)"
            )
        shape = ModelShape.of(preflight)
        budget = byte_budget(plan, shape)
        source = preflight.origin.named
        stem = _file_name(source.name, budget.size)
        target = _target(out, stem)
        folder = (work or target.with_name(f"{target.stem}.compress")).absolute()
        if source.kind == "hub" and source.repo_id and source.commit:  # the model of today, also tomorrow
            plan = replace(plan, model=source.repo_id, revision=source.commit)
        elif Path(plan.model).exists():
            plan = replace(plan, model=str(Path(plan.model).absolute()))
        line = (plan.model, *(f"--{name}={value!s}" for name, value in sorted(plan.source.items())))
        keys = preflight.model.keys
        trained = keys.get(f"{preflight.model.architecture}.context_length", CONTEXT)
        context = min(CONTEXT, int(trained) if isinstance(trained, int) else CONTEXT)
        texts = divide(plan.data, folder / "texts")
        return cls(plan, shape, budget, preflight.source.kind != "gguf", context, line, target, folder, texts)

    def foresee(self, commands: Mapping[str, CommandOptions]) -> Foreseen:
        """The stages, for the candidates of the plan or those that are worth their time."""
        facts = JobFacts(
            self.out.stem, _short(self.plan.model), self.budget.size, self.shape, self.context, self.line, self.texts, self.work
        )
        own = self.plan.ways is None
        found = propose(self.plan, self.shape, self.budget.size) if own else self._said()
        ways, notes = found.ways, list(found.notes)
        if own and not self.cuttable and len(ways) > 1:
            ways, notes = ways[:1], [f"{self.plan.model} is a GGUF, which can only be rounded; name the checkpoint to cut it too"]
        if not ways:
            refuse_budget(self.budget, self._smallest(), self.plan.model)
        if own:
            learning = self._learning(ways, facts, commands)
            ways, notes = learning.ways, [*notes, *learning.notes]
        plan = replace(self.plan, ways=tuple(ways), size=self.budget.size, bpw=None, device=None)
        job = stages_of(plan, facts, commands)
        most, free = max(stage.forecast.memory for stage in job.stages.values()), available_memory()
        if most > free:
            notes.append(f"a stage may need {human_size(most)} of memory, and {human_size(free)} are free")
        done = Foreseen(plan, job, self.budget.size, self.budget.why, self.out, self.work, tuple(notes))
        if self.plan.time is not None and done.seconds > self.plan.time:
            late = f"it will take about {told_time(done.seconds)}, longer than the {told_time(self.plan.time)} that were given"
            done = replace(done, notes=(*notes, late))
        return done

    def _said(self) -> Proposal:
        """The candidates of the plan, and the whole model, which every one of them must beat."""
        notes, ways = [], list(self.plan.ways or ())
        if WHOLE not in [way.name for way in ways]:
            ways.insert(0, WayDown(WHOLE, why="what every other candidate must beat"))
        kept = [way for way in ways if not self._too_large(way)]
        if left := [way.name for way in ways if way not in kept]:
            notes.append(f"cannot be so small: {', '.join(left)}")
        return Proposal(tuple(kept), tuple(notes))

    def _too_large(self, way: WayDown) -> bool:
        """Whether that is known beforehand."""
        known = set(way.prune or {}) <= {"vocab_size", "vocab", "ffn"} and ("vocab" not in (way.prune or {}))
        return known and way_shape(way, self.shape).limits(types_of(self.plan))[0] > self.budget.size

    def _smallest(self) -> int:
        ways = self.plan.ways or propose(self.plan, self.shape, self.shape.limits(types_of(self.plan))[0]).ways
        return min(way_shape(way, self.shape).limits(types_of(self.plan))[0] for way in ways)

    def _learning(self, ways: tuple[WayDown, ...], facts: JobFacts, commands: Mapping[str, CommandOptions]) -> Proposal:
        """The same candidates, with what time there is to learn in."""
        time, notes = self.plan.time, []
        while True:
            job = stages_of(replace(self.plan, ways=ways), facts, commands)
            spent = sum(stage.forecast.seconds for stage in job.stages.values())
            if time is None or spent <= time or len(ways) == 1:
                break
            notes.append(f"{ways[-1].name} is left out: there is no time for it")
            ways = ways[:-1]
        count = self.plan.threads or cores()
        each = [learn_seconds(way_shape(way, self.shape), count) for way in ways]
        found = with_learning(ways, None if time is None else time - spent, each)
        return replace(found, notes=(*notes, *found.notes))


_SOMEWHERE = Path("sprig-compress.gguf")  # the plan of the shape writes nothing


def _file_name(model: str, size: int) -> str:
    return f"{_short(model)}-{human_size(size).replace(' ', '')}"


def _short(model: str) -> str:
    """The last part of a model's name, as a file can be called."""
    last = model.rstrip("/").rsplit("/", 1)[-1].removesuffix(".gguf")
    return re.sub(r"[^\w.+-]+", "-", last).strip("-.")[:100] or "model"


def _target(out: Path | str | None, name: str) -> Path:
    if out is None:
        return models().absolute() / f"{name}.gguf"
    target = Path(out)
    folder = target.is_dir() or str(out).endswith("/")
    return (target / f"{name}.gguf" if folder else target).absolute()
