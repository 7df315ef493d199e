"""Classifiers and rerankers: models whose head gives scores to a text instead of words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.errors import CheckpointError

MAX_LABELS = 4096


def classifies(hp: Mapping[str, Any]) -> bool:
    """Whether config.json names a class with a head that scores a whole text."""
    named = hp.get("architectures")
    return isinstance(named, list) and any(str(name).endswith("ForSequenceClassification") for name in named)


def labels(hp: Mapping[str, Any]) -> list[str]:
    """What the scores are for, in their order. Raises CheckpointError."""
    named, count = hp.get("id2label"), hp.get("num_labels")
    if isinstance(named, dict) and named:
        try:
            return [text for _, text in sorted((int(number), str(text)[:200]) for number, text in named.items())][:MAX_LABELS]
        except ValueError:
            raise CheckpointError("config.json: id2label does not number its labels") from None
    if count is None:
        count = 2  # transformers' default
    if type(count) is not int or not 1 <= count <= MAX_LABELS:
        raise CheckpointError(f"config.json: num_labels must be a whole number from 1 to {MAX_LABELS}")
    return [f"LABEL_{i}" for i in range(count)]
