"""The tuned file: a copy of the GGUF in which scales, mins and norms are overwritten in their places."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from agent.errors import OutputError
from agent.files import write_error
from agent.gguf.check import check
from agent.gguf.reader import TensorEntry
from pipeline.format import ggml
from pipeline.format.ggml import Bytes
from pipeline.format.private_copy import private_copy


@contextmanager
def rewritten(gguf: Path, out: Path, changed: Iterable[tuple[TensorEntry, Bytes]]) -> Iterator[Path]:
    """A copy beside ``out`` with other rows in some tensors, checked; it is gone afterwards unless somebody gave it a name.

    Raises:
        OutputError: it cannot be written, or a tensor holds what llama.cpp would not take.
    """
    part = out.with_name(out.name + ".part")
    with private_copy(gguf, part) as fd:
        try:
            for entry, rows in changed:
                _put(fd, entry, rows)
        except OSError as e:
            raise write_error(e, out) from None
        check(part)
        yield part


def _put(fd: int, entry: TensorEntry, rows: Bytes) -> None:
    if rows.nbytes != entry.nbytes or not ggml.valid(rows, entry.type):
        raise OutputError(f"the tuning made {entry.name} what llama.cpp does not take; nothing was written, report this as a bug")
    rest, offset = np.ascontiguousarray(rows).data.cast("B"), entry.offset
    while rest:
        count = os.pwrite(fd, rest, offset)
        rest, offset = rest[count:], offset + count
