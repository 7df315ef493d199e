"""Reads the small JSON files of a checkpoint, which strangers wrote."""

from __future__ import annotations

import json
from typing import Any

from agent.errors import CheckpointError


def json_object(raw: bytes, name: str) -> dict[str, Any]:
    """The object in a file of this name. Raises CheckpointError if it holds none."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as e:
        raise CheckpointError(f"{name} is not JSON ({e}); download it again") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{name} is not a JSON object; download it again")
    return found
