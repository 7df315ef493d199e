"""Encoders by name, with what they need measured first: the way from ``--encoder gptq`` or ``--size`` to a file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.errors import BrokenOffError, GGUFError, OutputError, RecipeError, SourceError, SprigError, UnsupportedError
from agent.models.file import writes_text
from agent.progress import OnProgress, Progress
from pipeline.as_gguf import as_gguf
from pipeline.calibrate.calibrate import calibrate, kept_text
from pipeline.calibrate.statistics import IMATRIX, Statistics
from pipeline.network.extra import need_train_extra
from pipeline.preflight import Preflight, refuse_idle
from pipeline.quantize import Finish, QuantizeResult
from pipeline.quantize import dry_run as plan_one_pass
from pipeline.quantize import quantize as one_pass
from pipeline.rounding.gptq import GptqEncoder
from pipeline.sources.base_model import open_model
from pipeline.sources.foreign import Detour

ENCODERS = ("ggml", "gptq", "tune")
TUNE_MINUTES = 4.0
_OF_SOURCE = ("base", "revision", "token", "offline")  # options that say which model it is
_OF_RUN = ("gate", "executor")  # which a plan does not take


def dry_run(
    model: str,
    recipe: str | None = None,
    out: Path | str | None = None,
    *,
    encoder: str | None = None,
    statistics: Path | None = None,
    minutes: float | None = None,
    **options: Any,
) -> Preflight | Detour:
    """What ``quantize`` would do; without statistics, with the types that are guessed. Raises SprigError."""
    encoder = _usual(encoder, statistics, options)
    _refuse(encoder, statistics, options, minutes)
    if statistics:
        return plan_one_pass(model, recipe, out, **_with(statistics, encoder, options))
    if encoder == "ggml":
        return plan_one_pass(model, recipe, out, **options)
    plan = _plan_unmeasured(model, recipe, out, encoder, options)
    note = f"--encoder {encoder} measures the inputs of the weights first; --statistics takes what sprig calibrate measured"
    return replace(plan, notes=(*plan.notes, note))


def quantize(
    model: str,
    recipe: str | None = None,
    out: Path | str | None = None,
    *,
    encoder: str | None = None,
    statistics: Path | None = None,
    minutes: float | None = None,
    resume: bool = False,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> QuantizeResult:
    """Make a GGUF, as ``pipeline.quantize.quantize`` does, and measure first what its encoder or its budget needs.

    Args:
        encoder: "ggml", its own kernels; "gptq", error feedback where that wins; "tune", the same, and then scales, mins and
            norms learned. By default ggml; gptq with ``statistics``, and where a budget has to be measured anyway.
        statistics: what ``sprig calibrate --statistics`` measured on the model, for all but ggml. By default it is measured
            first, on the text that ``sprig calibrate`` takes, beside the output. It stays for ``resume`` when the run is
            stopped, and is removed otherwise.
        minutes: of the tuning; by default four.
        options: of ``pipeline.quantize.quantize``.

    Raises:
        SprigError: it could not be done.
    """
    encoder = _usual(encoder, statistics, options)
    _refuse(encoder, statistics, options, minutes)
    if encoder == "ggml":
        return one_pass(model, recipe, out, resume=resume, on_progress=on_progress, **options)
    if statistics is not None:
        measured: AbstractContextManager[Path] = nullcontext(statistics)
    else:
        plan = _plan_unmeasured(model, recipe, out, encoder, options)
        measured = _measured(model, plan.out.with_name(f"{plan.out.name}.statistics"), resume, on_progress, options)
    with measured as folder:
        finish = _refiner(model, folder, options)
        if encoder == "tune":
            finish = _both(finish, _tuner(model, folder, minutes or TUNE_MINUTES, options))
        wishes = _with(folder, encoder, options)
        return one_pass(model, recipe, out, resume=resume, on_progress=on_progress, finish=finish, **wishes)


def _usual(encoder: str | None, statistics: Path | None, options: dict[str, Any]) -> str:
    budget = options.get("size") or options.get("bpw")
    return encoder or ("gptq" if statistics or (budget and not options.get("imatrix")) else "ggml")


def _refuse(encoder: str, statistics: Path | None, options: dict[str, Any], minutes: float | None) -> None:
    if encoder not in ENCODERS:
        raise RecipeError(f"there is no encoder {encoder!r}; take one of {', '.join(ENCODERS)}")
    if minutes and encoder != "tune":
        raise RecipeError(f"--tune-minutes is for --encoder tune, and this is {encoder}; leave it out")
    if encoder == "ggml":
        if statistics:
            raise RecipeError("--statistics is for --encoder gptq and tune; ggml's own kernels take an --imatrix")
    elif options.get("imatrix"):
        raise RecipeError(f"--encoder {encoder} measures the importances together with the rest; leave --imatrix out")
    elif options.get("stream"):
        raise SourceError(f"--encoder {encoder} needs the whole model on this disk; leave --stream out")
    if encoder == "tune":
        need_train_extra("--encoder tune")


def _with(statistics: Path, encoder: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options with the encoder and its imatrix. Raises SprigError if the statistics are none."""
    known = Statistics.open(statistics)
    rounds = GptqEncoder(known, options.get("threads"))
    return {**options, "encoder": rounds, "imatrix": known.folder / IMATRIX, "tuned": encoder == "tune"}


def _plan_unmeasured(model: str, recipe: str | None, out: Path | str | None, encoder: str, options: dict[str, Any]) -> Preflight:
    """The plan before anything is measured. Raises SprigError for what would only fail after minutes of measuring."""
    plan = plan_one_pass(model, recipe, out, **{name: value for name, value in options.items() if name not in _OF_RUN})
    if not isinstance(plan, Preflight):
        raise RecipeError("this model is converted by llama.cpp's script: name --statistics DIR, or take --encoder ggml")
    if not writes_text(plan.model.keys):
        raise UnsupportedError(
            f"--encoder {encoder} measures a model while it reads text for its next word, and {plan.origin.name} writes none; "
            "take a recipe (-q) and --encoder ggml"
        )
    refuse_idle(plan.choices, plan.recipe)
    return plan


@contextmanager
def _measured(model: str, folder: Path, resume: bool, on_progress: OnProgress | None, options: dict[str, Any]) -> Iterator[Path]:
    """The folder with statistics. It is removed afterwards, unless --resume can go on with it."""
    _measure(model, folder, resume, on_progress, options)  # which removes itself what it leaves
    stopped = False
    try:
        yield folder
    except (KeyboardInterrupt, BrokenOffError):
        stopped = True
        raise
    finally:
        if not stopped:
            shutil.rmtree(folder, ignore_errors=True)


def _measure(model: str, folder: Path, resume: bool, on_progress: OnProgress | None, options: dict[str, Any]) -> None:
    """Calibrate into the folder, unless a run that was killed has done so."""
    if resume:
        with suppress(SprigError):
            Statistics.open(folder)
            return
    report = on_progress or (lambda progress: None)
    matrix = folder.with_name(f"{folder.name}.imatrix.gguf")
    try:
        calibrate(
            model, matrix, statistics=folder, resume=resume, threads=options.get("threads"),
            on_step=_within("calibrate", report),
            **_of_source(options),
        )  # fmt: skip
    finally:
        matrix.unlink(missing_ok=True)


def _within(job: str, report: OnProgress) -> OnProgress:
    """For a job in the job: its name stands before those of its stages."""
    return lambda step: report(replace(step, stage=f"{job}: {step.stage}"))


def _of_source(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in _OF_SOURCE if options.get(name)}


def _both(first: Finish, second: Finish) -> Finish:
    return lambda part, report: (*first(part, report), *second(part, report))


def _refiner(model: str, statistics: Path, options: dict[str, Any]) -> Finish:
    """The second rounding of a finished file, on the text that was calibrated with."""

    def refine_it(part: Path, report: OnProgress) -> tuple[str, ...]:
        from pipeline.refine.refine import refine

        text = kept_text(statistics)
        if text is None:
            return ("rounded for the inputs of the original alone: the statistics hold no text for a second rounding",)
        size = part.stat().st_size
        report(Progress("round again", 0, size, "bytes", part.name))
        try:
            with as_gguf(model, part.absolute().with_name(f".{part.name[:60]}.original"), options) as original:
                found = refine(part, original, text.windows, threads=options.get("threads"))
        except (OutputError, GGUFError) as e:  # no room, or no way to read its inputs: the file is good as it is
            return (f"the tensors were not rounded again for what the rounded layers before them give: {e}",)
        report(Progress("round again", size, size, "bytes", part.name))
        return (found.note,)

    return refine_it


def _tuner(model: str, statistics: Path, minutes: float, options: dict[str, Any]) -> Finish:
    """The tuning of a finished file: on the calibration's text, or the project's where that was the user's or too short."""

    def tune_it(part: Path, report: OnProgress) -> tuple[str, ...]:
        from pipeline.text.calibration import own_text
        from pipeline.tune.tune import FEWEST_TOKENS, tune

        text = kept_text(statistics)
        found = tune(
            part, open_model(model, **_of_source(options)), part, minutes=minutes, threads=options.get("threads"),
            texts=text.windows if text and text.tokens >= FEWEST_TOKENS else [own_text()],
            on_progress=_within("tune", report),
        )  # fmt: skip
        return (found.note,)

    return tune_it
