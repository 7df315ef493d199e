"""Training through the rounding of a GGUF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def round_through(network: Any, kinds: Mapping[str, str]) -> None: ...
