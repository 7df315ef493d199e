"""What a sweep found, as one table: a row for each file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from agent.files import human_size
from agent.text import display
from pipeline.steps.pairs import Measured, paired
from pipeline.sweep.plan import PlannedFile
from pipeline.sweep.step import StepResult
from pipeline.sweep.steps import evaluate_step, quantize_step

_LONG = 1e5  # as a random model's perplexity


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One file of a plan.

    Attributes:
        choices: recipe, size, bpw, encoder, as far as the plan says them.
        size: bytes; None when it was not made.
        bits_per_weight: of the whole file.
        kld, top1, perplexity: value and standard error; None where they were not measured.
        over_first: mean KLD less that of the model's first file in the plan, paired window by window; None in that file.
        best: whether no smaller file of the same model has a lower divergence.
        seconds: of making and of measuring it.
        quantized, evaluated: what the commands answered with --json.
        error: why it was not made or measured; empty otherwise.
    """

    name: str
    model: str
    choices: Mapping[str, str]
    size: int | None
    bits_per_weight: float | None
    kld: Measured | None
    top1: Measured | None
    perplexity: Measured | None
    over_first: Measured | None
    best: bool
    seconds: float
    quantized: Mapping[str, Any] | None
    evaluated: Mapping[str, Any] | None
    error: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for --json and table.json."""
        return asdict(self)


def rows_of(files: Sequence[PlannedFile], ended: Mapping[str, StepResult]) -> list[SweepRow]:
    """A row for each file, models in the order of the plan, the smallest file first."""
    order = {file.model: i for i, file in reversed(list(enumerate(files)))}
    first = first_files(files)
    rows = [_row(file, ended, first[file.model]) for file in files]
    rows.sort(key=lambda row: (order[row.model], row.size is None, row.size or 0, row.name))
    lowest: dict[str, float] = {}
    found: list[SweepRow] = []
    for row in rows:
        best = row.kld is not None and row.kld[0] < lowest.get(row.model, float("inf"))
        if row.kld is not None and best:
            lowest[row.model] = row.kld[0]
        found.append(replace(row, best=best))
    return found


def first_files(files: Sequence[PlannedFile]) -> dict[str, str]:
    """Model -> its first file in the plan, which the others are compared with."""
    return {file.model: file.name for file in reversed(files)}


def _row(file: PlannedFile, ended: Mapping[str, StepResult], first: str) -> SweepRow:
    steps = [ended[name] for name in (quantize_step(file.name), evaluate_step(file.name)) if name in ended]
    beside = ended.get(evaluate_step(first))
    made = steps[0].result
    measured = steps[1].result if len(steps) > 1 else None
    one: Mapping[str, Any] = measured["candidates"][0] if measured else {}
    overall: Mapping[str, Any] = one.get("overall", {})
    size = int(made["size"]) if made else None
    weights = one.get("weights") or (made or {}).get("weights")
    return SweepRow(
        name=file.name,
        model=file.model,
        choices=file.choices,
        size=size,
        bits_per_weight=round(8 * size / weights, 3) if size and weights else None,
        kld=_estimate(overall.get("kld")),
        top1=_estimate(overall.get("top1")),
        perplexity=_estimate(overall.get("perplexity")),
        over_first=_over(measured, beside.result if beside and first != file.name else None),
        best=False,
        seconds=round(sum(step.seconds for step in steps), 3),
        quantized=made,
        evaluated=measured,
        error=next((step.error for step in steps if step.error), ""),
    )


def _over(measured: Mapping[str, Any] | None, first: Mapping[str, Any] | None) -> Measured | None:
    if measured is None or first is None:
        return None
    return paired(measured["candidates"][0]["per_window"], first["candidates"][0]["per_window"], "kld")


def _estimate(told: Any) -> Measured | None:
    return (told["value"], told.get("error")) if isinstance(told, Mapping) and told.get("value") is not None else None


def table_text(rows: Sequence[SweepRow]) -> str:
    """The table for a terminal; a star marks the files that no smaller one of their model beats."""
    head = ["file", "size", "bits/weight", "mean KLD", "over first", "same top-1", "perplexity", "seconds"]
    lines = [head, *(_cells(row) for row in rows)]
    filled = [i for i in range(len(head)) if i < 2 or any(line[i] for line in lines[1:])]
    widths = {i: max(len(line[i]) for line in lines) for i in filled}
    told = ["  ".join(_fill(line[i], widths[i], right=i > 0) for i in filled).rstrip() for line in lines]
    for i, row in enumerate(rows, 1):
        if row.error:
            told[i] += f"  {display(row.error)}"
    return "\n".join(told)


def _cells(row: SweepRow) -> list[str]:
    return [
        f"{row.name} *" if row.best else row.name,
        "failed" if row.size is None else human_size(row.size),
        "" if row.bits_per_weight is None else f"{row.bits_per_weight:.2f}",
        _figure(row.kld, 4),
        _figure(row.over_first, 4, sign="+"),
        _figure(row.top1 and (100 * row.top1[0], row.top1[1] and 100 * row.top1[1]), 1, " %"),
        _figure(row.perplexity, 2),
        f"{row.seconds:.0f}",
    ]


def _figure(estimate: Measured | None, digits: int, unit: str = "", *, sign: str = "") -> str:
    if estimate is None:
        return ""
    value, error = estimate
    form = f".{digits}f" if abs(value) < _LONG else ".2e"
    return f"{value:{sign}{form}}{'' if error is None else f' ± {error:{form}}'}{unit}"


def _fill(text: str, width: int, *, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)
