"""Notes that last: one JSON line each, only ever appended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

from agent.tools.builtin.clock import locked
from agent.tools.result import ToolError, clean

MAX_NOTE = 2000
MAX_FOUND = 10
_MAX_FILE = 1 << 24


class Notes:
    """The notes of one home folder, in ``file``; ``now`` gives seconds since the epoch."""

    def __init__(self, file: Path, now: Callable[[], float] = time.time) -> None:
        self._file, self._now = file, now

    def remember(self, text: str) -> str:
        """Keep a note for later conversations."""
        text = clean(text).strip()
        if not text:
            raise ToolError("the note is empty")
        if len(text) > MAX_NOTE:
            raise ToolError(f"a note has at most {MAX_NOTE} characters, not {len(text)}: keep what matters")
        line = json.dumps({"at": round(self._now()), "text": text}, ensure_ascii=False) + "\n"
        with locked(self._file):
            fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "a+b") as f:
                size = os.fstat(fd).st_size
                if size > _MAX_FILE:
                    raise ToolError(f"the notes have grown to {size:,} bytes; remove some from {self._file}")
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    line = "\n" + line  # a line that a power loss cut short must not spoil this one
                f.write(line.encode("utf-8"))
                f.flush()
                os.fsync(fd)
        return "noted"

    def recall(self, query: str = "") -> str:
        """Find notes by words; without words, the newest."""
        notes = self._read()
        wanted = _words(query)
        if wanted:
            scored = [(_score(wanted, text), at, text) for at, text in notes]
            best = sorted((s for s in scored if s[0]), key=lambda s: (s[0], s[1]), reverse=True)
            found = [(at, text) for _, at, text in best[:MAX_FOUND]]
        else:
            found = notes[::-1][:MAX_FOUND]
        if not found:
            return "no such note" if notes else "there are no notes"
        return "\n".join(f"{time.strftime('%Y-%m-%d', time.localtime(at))}: {text}" for at, text in found)

    def _read(self) -> list[tuple[float, str]]:
        """When and what, oldest first; lines that cannot be read are passed over."""
        notes = []
        with contextlib.suppress(FileNotFoundError), self._file.open("rb") as f:
            for line in f.read(2 * _MAX_FILE).splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    note = json.loads(line)
                    notes.append((min(max(float(note["at"]), 0.0), 1e11), clean(str(note["text"]))))
        return notes


def _words(text: str) -> set[str]:
    plain = unicodedata.normalize("NFKD", text).casefold()
    return set(re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c))))


def _score(wanted: set[str], text: str) -> float:
    """Whole words count twice as much as beginnings of words."""
    words = _words(text)
    whole = len(wanted & words)
    parts = sum(1 for w in wanted - words if len(w) >= 3 and any(v.startswith(w[:-1] if len(w) > 3 else w) for v in words))
    return whole + parts / 2
