"""A report on disk: ``index.html`` for people, ``report.json`` for scripts."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.errors import OutputError
from agent.files import atomic_write, write_error
from pipeline.evaluate.figures import Evaluation
from pipeline.evaluate.report.page import page
from pipeline.evaluate.speed import FileSpeed
from pipeline.evaluate.tasks.calls import CallScore
from pipeline.evaluate.tasks.score import TaskScore


def write_report(
    evaluation: Evaluation,
    folder: Path,
    *,
    tasks: Sequence[TaskScore] = (),
    calls: Sequence[CallScore] = (),
    speeds: Sequence[FileSpeed] = (),
) -> Path:
    """Write what an evaluation found.

    Args:
        evaluation: with at least one candidate.
        folder: made when it is not there; files of these names in it are replaced.
        tasks, calls, speeds: what else was measured.

    Returns:
        The page, which needs no other file.

    Raises:
        OutputError: the folder cannot be made, or a file cannot be written.
    """
    text = page(evaluation, tasks=tasks, calls=calls, speeds=speeds)
    data = {
        **evaluation.to_dict(),
        "tasks": [asdict(one) for one in tasks],
        "calls": [asdict(one) for one in calls],
        "speeds": [asdict(one) for one in speeds],
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise write_error(e, folder) from None
    atomic_write(folder / "report.json", json.dumps(_plain(data), indent=1, allow_nan=False) + "\n")
    atomic_write(folder / "index.html", text)
    return folder / "index.html"


def check_folder(folder: Path) -> None:
    """Look whether a report can be written there, before hours are spent on it; nothing is made. Raises OutputError if not."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise OutputError(f"cannot write the report {folder}: {there} is no folder; name another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write the report {folder}: you may not write in {there}; name another place")


def _plain(value: Any) -> Any:
    """The same without NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
