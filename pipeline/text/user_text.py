"""Reads a text that a person named in an option."""

from __future__ import annotations

from pathlib import Path

from agent.errors import SprigError
from agent.files import human_size


def read_user_text(path: Path, option: str, *, most: int | None = None, encoding: str = "utf-8") -> str:
    """A file as text.

    Args:
        option: that names it, for messages.
        most: bytes that it may have.
        encoding: "utf-8", or "utf-8-sig" without a mark at the beginning.

    Raises:
        SprigError: it is no file, cannot be read, is larger, or is no UTF-8.
    """
    try:
        if path.is_dir() or not path.exists():
            raise SprigError(f"{option}: {path} is no file; name a text in UTF-8")
        with path.open("rb") as file:  # which may be a pipe
            raw = file.read() if most is None else file.read(most + 1)
        if most is not None and len(raw) > most:
            raise SprigError(f"{option}: {path} is larger than {human_size(most)}; take a part of it")
        return raw.decode(encoding)
    except OSError as e:
        raise SprigError(f"{option}: cannot read {path}: {e.strerror}") from None
    except UnicodeDecodeError as e:
        raise SprigError(f"{option}: {path} is no text in UTF-8 (byte {e.start}); convert it") from None
