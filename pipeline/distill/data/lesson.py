"""One sequence to learn from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingSequence:
    """Token ids, and which of them the loss counts: ``scored[i]`` says whether predicting ``ids[i]`` is."""

    ids: tuple[int, ...]
    scored: tuple[bool, ...]
