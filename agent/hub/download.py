"""A file of the Hub written to this disk: its name is checked, a cut is gone on with, and its hash is computed on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import BinaryIO, Protocol

from agent.errors import SourceError
from agent.hub.client import Hub, WeightFile
from agent.text import one_line

OnBytes = Callable[[str, int, int], None]  # a file or tensor, bytes so far, bytes in all
_STEP = 1 << 20


class Digest(Protocol):
    """A hash under way."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def copy(self) -> Digest: ...
    def hexdigest(self) -> str: ...


def safe_name(name: str, where: str) -> str:
    """``name`` if it can only mean a file below the folder it is joined to.

    Raises:
        SourceError: absolute, climbing, with a backslash or control character, or longer than a file system takes.
    """
    parts = name.split("/")
    good = all(p not in ("", ".", "..") and len(p.encode("utf-8", "replace")) <= 255 for p in parts)
    if not good or len(name) > 1000 or "\\" in name or ":" in name or not name.isprintable():
        raise SourceError(f"{where} names the file {one_line(repr(name))}, which no honest model does; do not use it")
    return name


def git_sha1(size: int) -> Digest:
    """The hash that git gives a blob of ``size`` bytes: SHA-1 over a short header and the content."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def wrong_hash(what: str, file: WeightFile, got: str, then: str) -> SourceError:
    """``what`` did not hash to what the Hub lists for ``file``."""
    kind = "SHA-256" if file.sha256 else "git SHA-1"
    return SourceError(f"{what} is not what the Hub lists: expected {kind} {file.etag}, got {got}; {then}")


def fetch_into(
    out: BinaryIO, hub: Hub, commit: str, file: WeightFile, digest: Digest, on_bytes: Callable[[int], None], *,
    at: int = 0, head: bytes = b"",
) -> str:  # fmt: skip
    """Complete a file of the Hub in ``out`` from where an earlier run left it; what is there already is hashed first.

    Args:
        out: open for reading and writing.
        digest: fresh; the hash that proves ``file``.
        on_bytes: told how many bytes of ``file`` are there.
        at: where its bytes lie in ``out``.
        head: its first bytes, which are known already and not written to ``out``.

    Returns:
        The hash of the whole file. What differs from the Hub's is still in ``out``.

    Raises:
        SourceError: the Hub fails; what came until then is good.
        OSError: ``out`` cannot be written.
    """
    digest.update(head)
    done = len(head)
    out.seek(at)
    while block := out.read(min(_STEP, file.size - done)):
        digest.update(block)
        done += len(block)
    on_bytes(done)
    told = done
    for chunk in hub.chunks(commit, file, done):
        out.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        if done - told >= _STEP or done == file.size:
            on_bytes(done)
            told = done
    return digest.hexdigest()
