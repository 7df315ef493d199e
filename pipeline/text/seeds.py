"""Seed prompts: short requests in many languages, from which a model writes its own calibration text in its chat template."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from agent.messages import Message, ToolSpec


@dataclass(frozen=True, slots=True)
class SeedPrompt:
    """What a model is asked.

    Attributes:
        language: of the request, as ISO 639-1 writes it.
        messages: of the system, the user and, where the talk goes on, the assistant; the last is the user's.
        tools: that the model may call; often none.
    """

    language: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()


def prompts() -> list[SeedPrompt]:
    """All prompts, English first."""
    return list(_prompts())


@cache
def _prompts() -> tuple[SeedPrompt, ...]:
    data = tomllib.loads((files("pipeline.text") / "seeds.toml").read_text(encoding="utf-8"))
    tools = {name: ToolSpec(name, **told) for name, told in data["tool"].items()}
    return tuple(
        SeedPrompt(entry["language"], _messages(entry), tuple(tools[name] for name in entry.get("tools", ())))
        for entry in data["prompt"]
    )


def _messages(entry: dict[str, Any]) -> tuple[Message, ...]:
    system = [{"role": "system", "content": entry["system"]}] if "system" in entry else []
    said = entry.get("messages") or [{"role": "user", "content": entry["user"]}]
    return tuple(Message(one["role"], one["content"]) for one in [*system, *said])
