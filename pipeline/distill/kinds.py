"""Which ggml type each tensor of a checkpoint gets from a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agent.errors import RecipeError


def kinds_of(folder: Path, recipe: str) -> Mapping[str, str]:
    raise RecipeError(f"no rounding yet for {recipe}")
