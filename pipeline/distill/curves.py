"""The losses of a run, on the disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


class Curves:
    """A line of JSON for each step."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "losses.jsonl").open("a")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **values}) + "\n")

    def close(self) -> None:
        self._file.close()


def draw(folder: Path) -> Path:
    return folder / "losses.jsonl"
