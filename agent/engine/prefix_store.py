"""The computed state of a fixed prefix (system prompt and tools) on disk, so that the next start need not compute it again.

A file belongs to one model, one kind of cache and one run of tokens; its name is a hash of all three. It is only read back by
who may write it: a state is data for llama.cpp, and nobody else's is taken.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

from agent.errors import SprigError
from agent.files import atomic_write, free_disk

_HEAD = struct.Struct("<8s32sIIQ")  # magic, key, CRC-32 of the data, tokens, bytes of data
_MAGIC = b"SPRIGKV1"
_KEEP = 8  # files, newest first
_KEEP_BYTES = 2_000_000_000
_PART_SECONDS = 3600.0  # after which a file that is not whole will not become so
_LEAVE_FREE = 500_000_000  # a cache must not fill a disk


class PrefixStore:
    """States of one model and context kind: ``identity`` is what they depend on beside their tokens.

    The folder is made when the first one is saved, for this user alone.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self.identity = folder, identity

    def _key(self, tokens: Sequence[int]) -> bytes:
        raw = struct.pack(f"<{len(tokens)}i", *tokens)
        return hashlib.sha256(self.identity.encode() + b"\0" + raw).digest()

    def _path(self, key: bytes) -> Path:
        return self.folder / f"{key.hex()[:32]}.kv"

    def load(self, tokens: Sequence[int]) -> bytes | None:
        """The state of exactly these tokens; None when there is none or it is damaged."""
        key = self._key(tokens)
        path = self._path(key)
        try:
            with path.open("rb") as f:
                status = os.fstat(f.fileno())
                if status.st_uid != os.getuid() or status.st_mode & 0o022:
                    return None
                magic, found, crc, count, size = _HEAD.unpack(f.read(_HEAD.size))
                if magic != _MAGIC or found != key or count != len(tokens) or size != status.st_size - _HEAD.size:
                    return None
                data = f.read(size)
                with contextlib.suppress(OSError):
                    os.utime(f.fileno())  # used now: it goes last when room is needed
        except (OSError, struct.error):
            return None
        return data if zlib.crc32(data) == crc else None

    def save(self, tokens: Sequence[int], data: bytes | bytearray) -> None:
        """Keep a state. What cannot be kept is not: this is a cache, and never an error."""
        key = self._key(tokens)
        with contextlib.suppress(OSError, SprigError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if free_disk(self.folder) - len(data) < _LEAVE_FREE:
                return
            head = _HEAD.pack(_MAGIC, key, zlib.crc32(data), len(tokens), len(data))
            path = self._path(key)
            atomic_write(path, head + bytes(data))
            self._prune(path)

    def _prune(self, newest: Path) -> None:
        for part in self.folder.glob(".*.kv.*.part"):  # of a process that was killed while it wrote
            with contextlib.suppress(OSError):
                if time.time() - part.stat().st_mtime > _PART_SECONDS:
                    part.unlink()
        files = sorted(self.folder.glob("*.kv"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
        total = 0
        for i, path in enumerate(files):
            total += path.stat().st_size
            if (i >= _KEEP or total > _KEEP_BYTES) and path != newest:
                path.unlink(missing_ok=True)
