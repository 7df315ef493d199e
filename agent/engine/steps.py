"""What an engine tells while an answer is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PrefillStep:
    """How far a prompt is computed, in tokens."""

    done: int
    total: int
    cached: int


@dataclass(frozen=True, slots=True)
class TextStep:
    """Tokens that were chosen, and their text with control tokens written out."""

    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class EndStep:
    """The answer is over.

    Attributes:
        reason: "stop", "length", "time", "context", "loop", "stuck", "cancelled" or "failed".
        why: of "failed", in one line.
        timing: see agent.engine.job.Timing.
        resident: bytes of the worker.
        seed: of the draws.
    """

    reason: str
    why: str
    timing: Mapping[str, Any]
    resident: int
    seed: int


Step = PrefillStep | TextStep | EndStep


def step_of(message: Mapping[str, Any]) -> Step:
    """A worker's message as a step."""
    if message["event"] == "prefill":
        return PrefillStep(message["done"], message["total"], message["cached"])
    if message["event"] == "text":
        return TextStep(tuple(message["ids"]), message["text"])
    return EndStep(message["reason"], message["why"], message["timing"], message["resident"], message["seed"])
