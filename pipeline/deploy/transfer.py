"""A file's bytes on their way: what is there already is kept when it is the beginning of the file, and the rest is added."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agent.errors import OutputError
from agent.progress import OnProgress, Progress

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """What is there already of a file: its bytes and their SHA-256 in hexadecimal."""

    size: int = 0
    sha256: str = hashlib.sha256().hexdigest()


class SentFile:
    """A file that is sent. Its SHA-256 is taken of the bytes as they are sent.

    Args:
        file: open for reading, in binary.
        path: of it.

    Attributes:
        size: bytes.
        sent: bytes that are at the other end.
    """

    def __init__(self, file: IO[bytes], path: Path, on_progress: OnProgress) -> None:
        self._file, self._path, self._on_progress = file, path, on_progress
        self._status = os.fstat(file.fileno())
        self._sum = hashlib.sha256()
        self.size, self.sent = self._status.st_size, 0

    def begins_with(self, part: Part) -> bool:
        """Whether the part is the beginning of the file; what is sent next is then the rest, and otherwise all of it."""
        self._file.seek(0)
        self._sum, self.sent = hashlib.sha256(), 0
        if part.size <= self.size:
            for piece in self._pieces("check", part.size):
                self._sum.update(piece)
            if self._sum.hexdigest() == part.sha256:
                self.sent = part.size
                return True
            self._file.seek(0)
            self._sum = hashlib.sha256()
        return False

    def rest(self) -> Iterator[bytes]:
        """What is not sent yet. OutputError when the file was changed meanwhile."""
        before = self.sent
        for piece in self._pieces("send", self.size - before):
            self._sum.update(piece)
            yield piece
            self.sent += len(piece)
        now = os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self._status.st_size, self._status.st_mtime_ns):
            raise OutputError(f"{self._path} was changed while it was sent; run it again")

    def arrived(self) -> None:
        """All of it is at the other end."""
        self._on_progress(Progress("send", self.size, self.size, "bytes"))

    @property
    def sha256(self) -> str:
        """Of what is sent, in hexadecimal."""
        return self._sum.hexdigest()

    def _pieces(self, stage: str, count: int) -> Iterator[bytes]:
        begin, done = (self.sent if stage == "send" else 0), 0
        total = self.size if stage == "send" else count
        if count:
            self._on_progress(Progress(stage, begin, total, "bytes"))
        while done < count:
            piece = self._file.read(min(_PIECE, count - done))
            if not piece:
                raise OutputError(f"{self._path} became shorter while it was read; run it again")
            yield piece
            done += len(piece)
            if stage == "check" or done < count:  # what was sent to the end has not arrived for that
                self._on_progress(Progress(stage, begin + done, total, "bytes"))
