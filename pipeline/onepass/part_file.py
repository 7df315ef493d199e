"""The half-written output: slabs go to their places, the journal notes them, and the disk keeps up in the background."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np

from pipeline.onepass.journal import Journal, Slab
from pipeline.sources.checkpoint import RawRows

_SYNC_BYTES = 96 << 20


class PartFile:
    """Writes slabs in any order.

    Data is handed to the disk as it comes, so that the sync at the end finds little left to do. The journal does not wait for
    it: it proves what it says by checksums.
    """

    def __init__(self, fd: int, journal: Journal) -> None:
        self.fd, self.journal = fd, journal
        self.written = sum(slab.length for slab in journal.done)
        self._since = 0
        self._background = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._sync: Future[None] | None = None

    def put(self, offset: int, data: RawRows, checksum: int, note: str = "") -> None:
        """Write a slab. Raises OSError if the disk refuses it."""
        rest = np.ascontiguousarray(data).data.cast("B")
        slab = Slab(offset, len(rest), checksum, note)
        while rest:
            count = os.pwrite(self.fd, rest, offset)
            rest, offset = rest[count:], offset + count
        self.journal.record(slab)
        self.written += slab.length
        self._since += slab.length
        if self._since >= _SYNC_BYTES and (self._sync is None or self._sync.done()):
            if self._sync is not None:
                self._sync.result()
            self._since = 0
            self._sync = self._background.submit(getattr(os, "fdatasync", os.fsync), self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._background.shutdown()
        if self._sync is not None and kind is None:
            self._sync.result()
