"""The project's own plain text for calibration: prose in eleven languages, code, tables, JSON, calls, questions.

It stands beside what a model writes itself from the seed prompts (``pipeline.text.seeds``). The held-out texts share no sentence
with it.
"""

from __future__ import annotations

from importlib.resources import files

_PARTS = ("prose", "work")


def own_text() -> str:
    """All of it, one text."""
    return "\n\n".join(_read(part) for part in _PARTS)


def _read(part: str) -> str:
    return (files("pipeline.text") / "calibration" / f"{part}.txt").read_text(encoding="utf-8").strip()
