"""What a person has sent before, for the Up key, and what is being written meanwhile.

What was sent is one JSON text a line in SPRIG_HOME, shared by all that run at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from agent.errors import SprigError
from agent.files import atomic_write
from agent.home import home

Mode = Literal["write", "edit", "search"]
MOST = 1_000  # entries
_LONGEST = 100_000  # characters of an entry that goes to the disk; a longer one is remembered until the program ends
_MOST_READ = 4_000_000  # bytes, from the end of the file


class History:
    """Entries, the oldest first. No method raises: a history that cannot be kept must not stop anybody."""

    def __init__(self, path: Path | None = None) -> None:
        """``path``: the file; by default ``history.jsonl`` in SPRIG_HOME. Nothing is read before ``load``."""
        self.path = home() / "history.jsonl" if path is None else path
        self._entries: list[str] = []
        self._loaded = False
        self._lock = threading.Lock()

    @property
    def entries(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def load(self) -> None:
        """Read what earlier starts have left, once. Made for a thread: a card may be slow."""
        with self._lock:
            if self._loaded:
                return
            self._loaded = True
            earlier, too_long = _read(self.path)
            self._entries = _without_repeats([*earlier, *self._entries])[-MOST:]
            if too_long:
                self._shorten()

    def add(self, text: str) -> bool:
        """Remember a text in this run; whether it should be saved, too. One that begins with a space is not remembered."""
        if not text.strip() or text[0] == " ":
            return False
        if self._entries and self._entries[-1] == text:
            return False
        self._entries = [*self._entries, text][-MOST:]
        return len(text) <= _LONGEST

    def save(self, text: str) -> None:
        """Add a text to the file. Made for a thread."""
        line = (json.dumps(text) + "\n").encode()
        with self._lock, contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _held(self.path) as fd:
                # One write: what two processes append cannot mix. A line that was cut short must not take this one along.
                os.write(fd, (b"" if _ends_well(fd) else b"\n") + line)

    def _shorten(self) -> None:
        with contextlib.suppress(OSError, SprigError), _held(self.path):
            earlier, _ = _read(self.path)  # again: others may have added to it
            lines = [json.dumps(text).encode() + b"\n" for text in _without_repeats(earlier)]
            while sum(map(len, lines)) > _MOST_READ // 2:
                del lines[: len(lines) // 4 + 1]
            atomic_write(self.path, b"".join(lines), mode=0o600)


class Walk:
    """One walk through the entries, back from a draft and perhaps to it again."""

    def __init__(self, history: History, draft: str) -> None:
        # Others that run may add to it meanwhile: this walk is through what there was.
        self._texts = (*history.entries, draft)
        self._at = len(self._texts) - 1

    @property
    def text(self) -> str:
        """The entry, or the draft, that has been reached."""
        return self._texts[self._at]

    @property
    def at_draft(self) -> bool:
        return self._at == len(self._texts) - 1

    def move(self, by: int) -> bool:
        """To an older (-1) or a newer one (1); whether there is one."""
        at = self._at + by
        if not 0 <= at < len(self._texts):
            return False
        self._at = at
        return True


class Draft:
    """What is being written: a message, an earlier one anew, or the words of a search; and what comes back after it.

    Attributes:
        mode: "write" a message, "edit" an earlier one, or "search" what was sent.
        title: says what is edited or searched.
        walk: through the history, while the Up key leads through it.
    """

    def __init__(self) -> None:
        self.mode: Mode = "write"
        self.title = ""
        self.walk: Walk | None = None
        self._beneath: list[tuple[Mode, str, str]] = []  # mode, title and text to come back to

    @property
    def covers(self) -> bool:
        """Whether something else comes back when this is over."""
        return bool(self._beneath)

    def begin(self, mode: Literal["edit", "search"], title: str, text: str) -> None:
        """Do something else; ``text`` is what has been written so far."""
        self._beneath.append((self.mode, self.title, text))
        self.mode, self.title, self.walk = mode, title, None

    def come_back(self) -> str:
        """Go on with what was there before. Returns its text."""
        self.mode, self.title, text = self._beneath.pop()
        self.walk = None
        return text

    def is_recalled(self, text: str) -> bool:
        """Whether a text is what the history has just put there, and nobody has typed."""
        return self.walk is not None and text == self.walk.text


@contextlib.contextmanager
def _held(path: Path) -> Iterator[int]:
    """The file open for appending and locked. Who shortens it puts another in its place: then that one is meant."""
    import fcntl

    for _ in range(5):
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_same(fd, path):
                yield fd
                return
        finally:
            os.close(fd)
    raise OSError("the file is replaced all the time")


def _is_same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def _ends_well(fd: int) -> bool:
    size = os.fstat(fd).st_size
    return size == 0 or os.pread(fd, 1, size - 1) == b"\n"


def _read(path: Path) -> tuple[list[str], bool]:
    """The entries, and whether the file has grown too long. Lines that are not a JSON string are skipped."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _MOST_READ))
            lines = file.read(_MOST_READ).splitlines()
    except OSError:
        return [], False
    found: list[str] = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            text = json.loads(line)
            if isinstance(text, str) and text.strip() and len(text) <= _LONGEST:
                found.append(text)
    return found[-MOST:], size > _MOST_READ or len(lines) > 2 * MOST


def _without_repeats(entries: list[str]) -> list[str]:
    return [text for i, text in enumerate(entries) if i == 0 or text != entries[i - 1]]
