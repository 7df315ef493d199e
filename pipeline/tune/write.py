"""The tuned file: a copy of the GGUF in which scales, mins and norms are overwritten in their places."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from agent.errors import OutputError
from agent.files import exclusive, reserve, write_error
from agent.gguf.check import check
from agent.gguf.reader import TensorEntry
from pipeline.format import ggml
from pipeline.format.ggml import Bytes


@contextmanager
def rewritten(gguf: Path, out: Path, changed: Iterable[tuple[TensorEntry, Bytes]]) -> Iterator[Path]:
    """A copy beside ``out`` with other rows in some tensors, checked; it is gone afterwards unless somebody gave it a name.

    Raises:
        OutputError: it cannot be written, or a tensor holds what llama.cpp would not take.
    """
    part = out.with_name(out.name + ".part")
    with exclusive(part) as fd:
        try:
            try:
                with gguf.open("rb") as source, os.fdopen(os.dup(fd), "wb") as copy:
                    reserve(fd, gguf.stat().st_size, part)
                    shutil.copyfileobj(source, copy, 1 << 20)
                for entry, rows in changed:
                    _put(fd, entry, rows)
            except OSError as e:
                raise write_error(e, out) from None
            check(part)
            yield part
        finally:
            with suppress(FileNotFoundError):
                part.unlink()


def _put(fd: int, entry: TensorEntry, rows: Bytes) -> None:
    if rows.nbytes != entry.nbytes or not ggml.valid(rows, entry.type):
        raise OutputError(f"the tuning made {entry.name} what llama.cpp does not take; nothing was written, report this as a bug")
    rest, offset = np.ascontiguousarray(rows).data.cast("B"), entry.offset
    while rest:
        count = os.pwrite(fd, rest, offset)
        rest, offset = rest[count:], offset + count
