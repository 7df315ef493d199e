"""What an engine tells while an answer is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.events import Prefill


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


Step = Prefill | TextStep | EndStep


def step_of(message: Mapping[str, Any]) -> Step:
    """A worker's message as a step."""
    if message["event"] == "prefill":
        return Prefill(message["done"], message["total"], message["cached"])
    if message["event"] == "text":
        return TextStep(tuple(message["ids"]), message["text"])
    return EndStep(message["reason"], message["why"], message["timing"], message["resident"], message["seed"])
