"""The reports of a sweep: a page for each model, as `sprig evaluate --report` writes it, of files that were measured apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.evaluate.report.write import write_report
from pipeline.evaluate.speed import FileSpeed
from pipeline.evaluate.tasks.calls import CallScore
from pipeline.evaluate.tasks.score import TaskScore
from pipeline.steps.evaluations import joined, rebuild
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
        beside: dict[str, Any] = {
            name: [rebuild(kind, score) for one in told for score in one.get(name) or ()] for name, kind in _BESIDE.items()
        }
        pages[model] = write_report(joined(told), folder / REPORTS / model, **beside)
    return pages
