"""Files that were measured apart with `sprig evaluate --json`, on the same windows, as one evaluation."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from pipeline.evaluate.figures import Evaluation
from pipeline.steps.pairs import paired


def joined(told: Sequence[Mapping[str, Any]]) -> Evaluation:
    """The evaluation that these answers make together; all are compared with the first, window by window."""
    whole = {**told[0], "candidates": _beside(told), "seconds": sum(one["seconds"] for one in told)}
    found: Evaluation = rebuild(Evaluation, whole)
    return found


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
