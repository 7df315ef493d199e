"""The pages of a sweep: files that were measured apart, as if they had been measured together."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.evaluate.beside import Beside
from pipeline.evaluate.figures import WindowFigures
from pipeline.evaluate.tasks.calls import CallScore
from pipeline.steps.evaluations import rebuild
from pipeline.sweep.report import write_reports
from pipeline.sweep.table import SweepRow
from tests.pipeline.evaluate.report.evaluations import evaluation
from tests.pipeline.evaluate.report.test_write import CALLS, SPEEDS, TASKS


def answered(name: str, klds: tuple[float, float], beside: Beside) -> dict[str, Any]:
    """What `sprig evaluate --json` says of one file."""
    found = evaluation((name, 1_000_000, klds[0]))
    windows = tuple(WindowFigures(domain, 10, 2.0, kld, 0.9) for domain, kld in zip(("chat", "zh"), klds, strict=True))
    found = replace(found, candidates=(replace(found.candidates[0], per_window=windows),))
    told: dict[str, Any] = json.loads(json.dumps({**found.to_dict(), **beside.to_dict()}, default=str))
    return told


def row(name: str, evaluated: dict[str, Any] | None) -> SweepRow:
    return SweepRow(name, "m", {}, 1, 4.0, None, None, None, None, False, 1.0, None, evaluated, "")


def test_the_page_has_all_files_of_a_model_with_what_was_measured_beside(tmp_path: Path) -> None:
    small = answered("small.gguf", (0.5, 0.7), Beside(tuple(TASKS), tuple(CALLS), tuple(SPEEDS)))
    large = answered("large.gguf", (0.1, 0.2), Beside((), (), ()))
    pages = write_reports([row("small", small), row("large", large), row("gone", None)], {"m": "large"}, tmp_path)
    assert pages == {"m": tmp_path / "reports" / "m" / "index.html"}
    told = json.loads((tmp_path / "reports" / "m" / "report.json").read_text())
    assert [one["name"] for one in told["candidates"]] == ["large.gguf", "small.gguf"], "the first of the plan is compared with"
    assert told["candidates"][0]["overall"]["kld_over_first"] is None
    assert told["candidates"][1]["overall"]["kld_over_first"]["value"] == pytest.approx(0.45)
    assert [len(told[kind]) for kind in ("tasks", "calls", "speeds")] == [2, 1, 1]


def test_a_score_comes_back_from_json_as_it_was() -> None:
    assert rebuild(CallScore, {**json.loads(json.dumps(asdict(CALLS[0]))), "more": "of a newer Sprig"}) == CALLS[0]
