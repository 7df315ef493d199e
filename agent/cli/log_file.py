"""The file of log lines: small, turned over when it is full, and for its owner alone."""

from __future__ import annotations

import logging
import os
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

_MOST_BYTES, _OLD_FILES = 256_000, 2


class PrivateFile(RotatingFileHandler):
    """Appends to a file of at most 256 kB and keeps two older ones. Where it cannot be written, nothing is."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=_MOST_BYTES, backupCount=_OLD_FILES, delay=True)

    def _open(self) -> Any:
        Path(self.baseFilename).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        private = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        return open(private, "a", encoding="utf-8", errors="backslashreplace")  # noqa: PTH123

    def handleError(self, record: logging.LogRecord) -> None:
        """The terminal may be a screen by now, and must not hear of it."""
