"""The stages that carry out a plan: a command each, what it needs, a hash of all that its result depends on, a forecast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.device.processor import cores
from agent.files import parse_size
from pipeline.card import sprig_version
from pipeline.compress.forecast import (
    Forecast,
    calibrate_forecast,
    convert_forecast,
    distill_forecast,
    prune_forecast,
    quantize_forecast,
    read_forecast,
)
from pipeline.compress.plan import WHOLE, CompressPlan, WayDown
from pipeline.compress.propose import types_of, way_shape
from pipeline.compress.shape import ModelShape
from pipeline.compress.texts import DividedTexts
from pipeline.steps.key import hash_of, looks, value_of
from pipeline.steps.options import CommandOptions, arguments

STATISTICS, IMATRIX = "statistics", "imatrix.gguf"  # what a calibration makes
BITS = "bits"  # the one stage that is no command: bits per byte of two vocabularies on the same bytes
WINDOWS, CONTEXT = 24, 512
_TOKENS, _OWN_TOKENS = 8192, 50_000  # of `sprig calibrate`; about what a teacher writes
_LARGEST, _UNCHECKED = "Q8_0", "--no-check"  # what a cut costs is measured at the end
_VOCABULARY = ("vocab", "vocab_size")
_SMALL_REFERENCE = 2_000_000_000  # weights: F32, with which llama.cpp computes fastest; above it F16


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One stage.

    Attributes:
        name: of its folder in the work folder.
        command: of `sprig`, or ``BITS``.
        arguments: all but where things go.
        makes: the file or folder that it makes, in its own folder; empty when it only answers.
        key: hash of all that the result depends on.
        needs: names of the stages before it.
        resumes: whether the command goes on where it was killed.
        whole: whether what it makes has its name only when it is finished.
        lender: of a calibration, the one whose text it reads, where no text was given.
    """

    name: str
    command: str
    arguments: tuple[str, ...]
    makes: str
    key: str
    needs: tuple[str, ...]
    forecast: Forecast
    resumes: bool = False
    whole: bool = False
    lender: str = ""

    def place(self, work: Path) -> Path:
        """Where that lies."""
        return work / self.name / self.makes


@dataclass(frozen=True, slots=True)
class WayStages:
    """The names of the stages of one candidate, in their order, and of those that make and judge its file."""

    way: WayDown
    stages: tuple[str, ...]
    quantize: str
    evaluate: str | None
    bits: str | None


@dataclass(frozen=True, slots=True)
class Job:
    """What there is to do.

    Attributes:
        stages: name -> stage, each behind those that it needs.
    """

    stages: Mapping[str, PlannedStage]
    ways: tuple[WayStages, ...]


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What the stages are made from, beside the plan.

    Attributes:
        name: of the file that is made, without .gguf; ``short`` of the model, as its checkpoints are called.
        size: bytes of it at most.
        context: tokens of a window.
        model: arguments that name the model, the same at every later time.
        work: the work folder, whole.
    """

    name: str
    short: str
    size: int
    shape: ModelShape
    context: int
    model: tuple[str, ...]
    texts: DividedTexts
    work: Path


def stages_of(plan: CompressPlan, facts: JobFacts, commands: Mapping[str, CommandOptions]) -> Job:
    """The stages of a plan whose candidates are known. What two candidates share is one stage.

    Raises:
        PlanError: an option's value is of the wrong kind.
    """
    builder = _Builder(plan, facts, commands)
    assert plan.ways is not None
    cut = any(way.cuts_vocabulary for way in plan.ways)
    ways = tuple(builder.way(way, cut) for way in plan.ways)
    return Job(builder.stages, ways)


def _number(said: object) -> int:
    """A number such as 150000 or "150k"; 0 where there is none."""
    try:
        return 0 if said is None else parse_size(str(said))
    except ValueError:
        return 0


@dataclass
class _Builder:
    plan: CompressPlan
    facts: JobFacts
    commands: Mapping[str, CommandOptions]
    stages: dict[str, PlannedStage] = field(default_factory=dict)
    lenders: dict[str, str] = field(default_factory=dict)  # checkpoint's stage -> calibration of a model of the same tokens

    def __post_init__(self) -> None:
        self.cores = self.plan.threads or cores()
        self.tokens = _number(self.plan.calibrate.get("tokens")) or _TOKENS
        self.windows = _number(self.plan.evaluate.get("windows")) or WINDOWS
        self.context = _number(self.plan.evaluate.get("context")) or self.facts.context

    def way(self, way: WayDown, cut: bool) -> WayStages:
        shape = way_shape(way, self.facts.shape)
        before = len(self.stages)
        at = self._checkpoint(way)
        quantized = self._quantize(way, at, shape)
        evaluated = None if way.cuts_vocabulary else self._evaluate(way, quantized, shape)
        bits = self._bits(way, quantized, shape) if cut else None
        own = [*self._behind(quantized), *filter(None, (evaluated, bits))]
        assert len(self.stages) > before
        return WayStages(way, tuple(dict.fromkeys(own)), quantized, evaluated, bits)

    def _behind(self, name: str) -> list[str]:
        """A stage and all that it rests on, first things first."""
        return [*(one for need in self.stages[name].needs for one in self._behind(need)), name]

    def _checkpoint(self, way: WayDown) -> str:
        """The stage that makes the checkpoint of a candidate; empty for the model itself."""
        vocab = {k: v for k, v in (way.prune or {}).items() if k in _VOCABULARY}
        rest = {k: v for k, v in (way.prune or {}).items() if k not in _VOCABULARY}
        at, teacher, checkpoint = "", "", f"{self.facts.short}-{way.name}"
        whole = self.facts.shape
        if vocab:
            texts = [] if "vocab" in vocab else [f"--vocab={path}" for path in self.facts.texts.read]
            after = way_shape(WayDown("", vocab), whole)
            at = teacher = self._add(
                f"{way.name}.vocab", "prune", (*self._model(at), *texts, _UNCHECKED), vocab, checkpoint, [],
                prune_forecast(whole, after, self.cores), whole=True,
            )  # fmt: skip
            whole = after
        if rest:
            measured = self._calibrate(at, whole)
            folder = self.stages[measured].place(self.facts.work)
            at = self._add(
                f"{way.name}.prune", "prune", (*self._model(at), f"--statistics={folder}", _UNCHECKED), rest, checkpoint,
                [*filter(None, (at,)), measured], prune_forecast(whole, way_shape(way, self.facts.shape), self.cores), whole=True,
            )  # fmt: skip
            self.lenders[at] = measured
        if way.distill is None:
            return at
        data = [f"--data={path}" for path in self.facts.texts.learn] if "data" not in way.distill else []
        tokens = _number(way.distill.get("tokens")) or self.facts.texts.learn_tokens or _OWN_TOKENS
        line = (*self._model(teacher), self._folder(at) or self._named(), *data)
        lender = self.lenders.get(at) or self._calibrate(teacher, whole)
        taught = self._add(
            f"{way.name}.distill", "distill", line, way.distill, checkpoint, [*filter(None, (at, teacher))],
            distill_forecast(way_shape(way, self.facts.shape), tokens, self.cores), whole=True,
        )  # fmt: skip
        self.lenders[taught] = lender
        return taught

    def _reference(self) -> str:
        recipe = "F32" if self.facts.shape.n_weights <= _SMALL_REFERENCE else "F16"
        line = (*self.facts.model, f"--recipe={recipe}")
        forecast = convert_forecast(self.facts.shape, 4 * self.facts.shape.n_weights)
        return self._add("reference", "quantize", line, {}, "reference.gguf", [], forecast)

    def _calibrate(self, at: str, shape: ModelShape) -> str:
        """Measured once for each checkpoint; of the model itself its reference is measured, which need not be made again."""
        needs = [at or self._reference()]
        source = str(self.stages[needs[0]].place(self.facts.work))
        said, given = "text" in self.plan.calibrate, self.facts.texts.calibrates
        texts = [f"--text={path}" for path in self.facts.texts.read] if given and not said else []
        lender = "" if said or given else self.lenders.get(at, "")
        return self._add(
            f"{at or WHOLE}.calibrate", "calibrate", (source, *texts), self.plan.calibrate, STATISTICS,
            [*needs, *filter(None, (lender,))],
            calibrate_forecast(shape, self.tokens, not (said or given or lender), self.cores), lender=lender,
        )  # fmt: skip

    def _quantize(self, way: WayDown, at: str, shape: ModelShape) -> str:
        most, name = shape.limits(types_of(self.plan))[1], f"{way.name}.quantize"
        file, size = f"{self.facts.name}.gguf", min(self.facts.size, most)
        needs = [at] if at else []
        if size == most:  # nothing is to be allocated, and next to nothing is lost
            kinds = {k: v for k, v in self.plan.quantize.items() if k not in ("types", "encoder", "tune_minutes")}
            line = (*self._model(at), f"--recipe={_LARGEST}")
            return self._add(name, "quantize", line, kinds, file, needs, convert_forecast(shape, size))
        measured = self._calibrate(at, shape)
        encoder = str(self.plan.quantize.get("encoder", "gptq"))
        home = self.facts.work / measured
        known = f"--imatrix={home / IMATRIX}" if encoder == "ggml" else f"--statistics={home / STATISTICS}"
        spent = (f"--size={size}", known, f"--sensitivity={home / f'sensitivity-{encoder}.json'}")
        return self._add(
            name, "quantize", (*self._model(at), *spent), self.plan.quantize, file, [*needs, measured],
            quantize_forecast(shape, size, self.cores),
        )  # fmt: skip

    def _evaluate(self, way: WayDown, quantized: str, shape: ModelShape) -> str:
        reference = self._reference()
        file, beside = (self.stages[name].place(self.facts.work) for name in (quantized, reference))
        options = {"windows": WINDOWS, "context": self.context, **self.plan.evaluate}
        texts = [f"--text={path}" for path in self.facts.texts.held] if "text" not in self.plan.evaluate else []
        tokens = self.context * self.windows
        return self._add(
            f"{way.name}.evaluate", "evaluate", (str(file), f"--reference={beside}", *texts), options, "", [quantized, reference],
            read_forecast(shape, self.facts.size, tokens, True, self.cores),
        )  # fmt: skip

    def _bits(self, way: WayDown, quantized: str, shape: ModelShape) -> str:
        said = self.plan.evaluate.get("text", self.facts.texts.held)
        texts = [said] if isinstance(said, str) else list(said)
        line = (str(self.stages[quantized].place(self.facts.work)), *(f"--text={path}" for path in texts))
        numbers = (f"--windows={self.windows}", f"--context={self.context}", f"--threads={self.cores}")
        tokens = self.context * self.windows
        return self._add(
            f"{way.name}.bits", BITS, (*line, *numbers), {}, "", [quantized],
            read_forecast(shape, self.facts.size, tokens, False, self.cores),
        )  # fmt: skip

    def _named(self) -> str:
        """The model itself, in one word."""
        return f"{self.plan.model}@{self.plan.revision}" if self.plan.revision else self.plan.model

    def _folder(self, at: str) -> str:
        return str(self.stages[at].place(self.facts.work)) if at else ""

    def _model(self, at: str) -> tuple[str, ...]:
        """Arguments that name the checkpoint of a stage, or the model itself."""
        return (self._folder(at),) if at else self.facts.model

    def _add(
        self, name: str, command: str, line: Sequence[str], options: Mapping[str, Any], makes: str, needs: Sequence[str],
        forecast: Forecast, *, whole: bool = False, lender: str = "",
    ) -> str:  # fmt: skip
        """Add a stage, or find the one that does the same. Its name."""
        known = self.commands.get(command, {})
        given = arguments(options, known, self.plan.folder, self.plan.where) if options else []
        threads = [f"--threads={self.plan.threads}"] if self.plan.threads and "threads" in known else []
        full = (*line, *given, *threads)
        key = self._key(command, full, needs)
        same = next((one.name for one in self.stages.values() if one.key == key), None)
        if same is None:
            resumes = "resume" in known
            self.stages[name] = PlannedStage(name, command, full, makes, key, tuple(needs), forecast, resumes, whole, lender)
        return same or name

    def _key(self, command: str, line: Sequence[str], needs: Sequence[str]) -> str:
        """What lies in the work folder is known by the stage that made it, and the texts there by what they say."""
        work = str(self.facts.work)
        told = [argument.replace(work, "") for argument in line]
        there = [self._looks(value_of(argument)) for argument in line]
        return hash_of([sprig_version(), command, told, there, [self.stages[need].key for need in needs]])

    def _looks(self, path: Path) -> object:
        if not path.is_relative_to(self.facts.work):
            return looks(path)
        return self.facts.texts.digest(path)
