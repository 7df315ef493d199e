"""The reports of a sweep: a page for each model, as `sprig evaluate --report` writes it, of files that were measured apart."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from pipeline.evaluate.figures import Evaluation
from pipeline.evaluate.report.write import write_report
from pipeline.evaluate.speed import FileSpeed
from pipeline.evaluate.tasks.calls import CallScore
from pipeline.evaluate.tasks.score import TaskScore
from pipeline.sweep.pairs import paired
from pipeline.sweep.table import SweepRow

REPORTS = "reports"
_BESIDE: Mapping[str, type] = {"tasks": TaskScore, "calls": CallScore, "speeds": FileSpeed}  # names in --json and of arguments


def write_reports(rows: Sequence[SweepRow], first: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Write reports/MODEL/index.html for each model of which a file was measured.

    Args:
        rows: of the sweep.
        first: model -> the file that the others of it are compared with.
        folder: of the sweep.

    Returns:
        Model -> page.

    Raises:
        OutputError: a report cannot be written.
    """
    pages: dict[str, Path] = {}
    for model in dict.fromkeys(row.model for row in rows):
        measured = [row for row in rows if row.model == model and row.evaluated is not None]
        if not measured:
            continue
        measured.sort(key=lambda row: row.name != first[row.model])
        told = [row.evaluated for row in measured if row.evaluated is not None]
        whole = {**told[0], "candidates": _beside(told), "seconds": sum(one["seconds"] for one in told)}
        beside: dict[str, Any] = {
            name: [rebuild(kind, score) for one in told for score in one.get(name) or ()] for name, kind in _BESIDE.items()
        }
        pages[model] = write_report(rebuild(Evaluation, whole), folder / REPORTS / model, **beside)
    return pages


def _beside(told: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The candidates, each with its paired differences to the first."""
    candidates = [dict(one["candidates"][0]) for one in told]
    first = candidates[0]["per_window"]
    for one in candidates[1:]:
        one["overall"] = _with_pairs(one["overall"], one["per_window"], first, None)
        one["per_domain"] = {d: _with_pairs(f, one["per_window"], first, d) for d, f in one["per_domain"].items()}
    return candidates


def _with_pairs(figures: Mapping[str, Any], own: Any, first: Any, domain: str | None) -> dict[str, Any]:
    pairs = {"kld_over_first": paired(own, first, "kld", domain), "nll_over_first": paired(own, first, "nll", domain)}
    return {**figures, **{name: {"value": pair[0], "error": pair[1]} for name, pair in pairs.items() if pair}}


def rebuild(kind: Any, data: Any) -> Any:
    """A dataclass from what ``asdict`` made of it and JSON kept; fields that it does not have are left out."""
    if data is None:
        return None
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, UnionType):
        return rebuild(next(one for one in inner if one is not NoneType), data)
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{f.name: rebuild(hints[f.name], data[f.name]) for f in fields(kind) if f.name in data})  # type: ignore[operator]
    if origin is tuple:
        return tuple(rebuild(inner[0], one) for one in data)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: rebuild(inner[1], one) for key, one in data.items()}
    return Path(data) if kind is Path else data
