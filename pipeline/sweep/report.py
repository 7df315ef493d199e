"""The reports of a sweep: a page for each model, as `sprig evaluate --report` writes it, of files that were measured apart."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from pipeline.sweep.pairs import paired
from pipeline.sweep.table import SweepRow

REPORTS = "reports"
_PARTS = {"tasks": "tasks.score.TaskScore", "calls": "tasks.calls.CallScore", "speeds": "speed.FileSpeed"}


def write_reports(rows: Sequence[SweepRow], first: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Write reports/MODEL/index.html for each model of which a file was measured.

    Args:
        rows: of the sweep.
        first: model -> the file that the others of it are compared with.
        folder: of the sweep.

    Returns:
        Model -> page; nothing when this Sprig has no `pipeline.evaluate.report`.

    Raises:
        OutputError: a report cannot be written.
    """
    try:
        evaluation = import_module("pipeline.evaluate.figures").Evaluation
        write = import_module("pipeline.evaluate.report.write").write_report
    except ModuleNotFoundError:
        return {}
    pages: dict[str, Path] = {}
    for model in dict.fromkeys(row.model for row in rows):
        measured = [row for row in rows if row.model == model and row.evaluated is not None]
        if not measured:
            continue
        measured.sort(key=lambda row: row.name != first[row.model])
        told = [row.evaluated for row in measured if row.evaluated is not None]
        whole = {**told[0], "candidates": _beside(told), "seconds": sum(one["seconds"] for one in told)}
        more = {part: list(_parts(part, told)) for part in _PARTS if any(one.get(part) for one in told)}
        pages[model] = write(rebuild(evaluation, whole), folder / REPORTS / model, **more)
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


def _parts(part: str, told: Iterable[Mapping[str, Any]]) -> Iterable[Any]:
    module, _, name = _PARTS[part].rpartition(".")
    kind = getattr(import_module(f"pipeline.evaluate.{module}"), name)
    return (rebuild(kind, entry) for one in told for entry in one.get(part) or [])


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
