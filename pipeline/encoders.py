"""Encoders by name, with what they need measured first: the way from ``--encoder gptq`` to a file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from agent.errors import RecipeError, SourceError, SprigError
from pipeline.calibrate.calibrate import calibrate
from pipeline.calibrate.statistics import IMATRIX, Statistics
from pipeline.preflight import Preflight
from pipeline.quantize import OnProgress, Progress, QuantizeResult, dry_run, quantize
from pipeline.rounding.gptq import GptqEncoder
from pipeline.sources.foreign import Detour

ENCODERS = ("ggml", "gptq")
_OF_SOURCE = ("base", "revision", "token", "offline")  # options that say which model it is


def plan_with(
    encoder: str, model: str, recipe: str | None, out: Path | str | None, *, statistics: Path | None = None, **options: Any
) -> Preflight | Detour:
    """What ``quantize_with`` would do. Raises SprigError, also where the statistics are still to be measured."""
    _refuse(encoder, statistics, options)
    if encoder == "ggml":
        return dry_run(model, recipe, out, **options)
    if statistics is None:
        raise RecipeError(f"a plan for --encoder {encoder} needs --statistics DIR (sprig calibrate makes them)")
    return dry_run(model, recipe, out, **_with(statistics, options))


def quantize_with(
    encoder: str,
    model: str,
    recipe: str | None = None,
    out: Path | str | None = None,
    *,
    statistics: Path | None = None,
    resume: bool = False,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> QuantizeResult:
    """Make a GGUF as ``pipeline.quantize.quantize`` does, rounded by an encoder.

    Args:
        encoder: "ggml", its own kernels, or "gptq", error feedback where that wins.
        statistics: what ``sprig calibrate --statistics`` measured on the model, for "gptq". By default it is measured first, on
            the text that ``sprig calibrate`` takes, beside the output, and removed when the file is done.
        options: of ``quantize``.

    Raises:
        SprigError: it could not be done.
    """
    _refuse(encoder, statistics, options)
    if encoder == "ggml":
        return quantize(model, recipe, out, resume=resume, on_progress=on_progress, **options)
    own = None
    if statistics is None:
        plan = dry_run(model, recipe, out, **options)
        if not isinstance(plan, Preflight):
            raise RecipeError(f"--encoder {encoder} needs --statistics DIR for a model that llama.cpp's script converts")
        statistics = own = plan.out.with_name(f"{plan.out.name}.statistics")
        _measure(model, own, resume, on_progress, options)
    result = quantize(model, recipe, out, resume=resume, on_progress=on_progress, **_with(statistics, options))
    if own is not None:
        shutil.rmtree(own, ignore_errors=True)
    return result


def _refuse(encoder: str, statistics: Path | None, options: dict[str, Any]) -> None:
    if encoder not in ENCODERS:
        raise RecipeError(f"there is no encoder {encoder!r}; take one of {', '.join(ENCODERS)}")
    if encoder == "ggml":
        if statistics:
            raise RecipeError("--statistics is for --encoder gptq; ggml's own kernels take an --imatrix")
    elif options.get("imatrix"):
        raise RecipeError(f"--encoder {encoder} measures the importances together with the rest; leave --imatrix out")
    elif options.get("stream"):
        raise SourceError(f"--encoder {encoder} needs the whole model on this disk; leave --stream out")


def _with(statistics: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The options with the encoder and its imatrix. Raises SprigError if the statistics are none."""
    known = Statistics.open(statistics)
    return {**options, "encoder": GptqEncoder(known, options.get("threads")), "imatrix": known.folder / IMATRIX}


def _measure(model: str, folder: Path, resume: bool, on_progress: OnProgress | None, options: dict[str, Any]) -> None:
    """Calibrate into the folder, unless a run that was killed has done so."""
    if resume:
        try:
            Statistics.open(folder)
        except SprigError:
            pass
        else:
            return
    report = on_progress or (lambda progress: None)
    matrix = folder.with_name(f"{folder.name}.imatrix.gguf")
    try:
        calibrate(
            model, matrix, statistics=folder, resume=resume, threads=options.get("threads"),
            on_step=lambda stage, done, total: report(Progress(f"calibrate: {stage}", done, total, model)),
            **{name: options[name] for name in _OF_SOURCE if options.get(name)},
        )  # fmt: skip
    finally:
        matrix.unlink(missing_ok=True)
