"""What a step's result depends on, as one hash: when it is the same, the step need not be done again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def hash_of(data: object) -> str:
    """SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


def looks(path: Path) -> object:
    """Size and time of a file, and of the files in a folder; None for what is neither."""
    try:
        if path.is_file():
            return [path.stat().st_size, path.stat().st_mtime_ns]
        if path.is_absolute() and path.is_dir():
            return [[one.name, looks(one)] for one in sorted(path.iterdir()) if one.is_file()]
    except OSError:  # an argument that is no path, or too long for one
        pass
    return None


def value_of(argument: str) -> Path:
    """The path that an argument of a command may be: "--text=a.txt" and "a.txt" are a.txt."""
    return Path(argument.partition("=")[2] if argument.startswith("--") else argument)
