"""Where Sprig keeps its files: ``SPRIG_HOME``, by default the platform's place for user data."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_data_path


def home() -> Path:
    """The folder of everything that Sprig keeps; it may not exist yet."""
    chosen = os.environ.get("SPRIG_HOME")
    return Path(chosen).expanduser() if chosen else user_data_path("sprig", appauthor=False)


def models() -> Path:
    """The folder of the models that ``sprig models`` lists."""
    return home() / "models"


def adapters() -> Path:
    """The folder of the GGUF adapters (LoRA) that are found by name."""
    return home() / "adapters"
