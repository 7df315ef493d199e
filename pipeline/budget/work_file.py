"""The model in F32 or F16, twice: the original, and a copy in which some tensors carry the values that they have after rounding.

Both have that type everywhere, so that nothing but those values differs, and a probe costs no more than rounding what it changes.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Self

import numpy as np

from agent.files import write_error
from agent.gguf.reader import TensorEntry, read_header
from agent.gguf.types import GGMLType
from pipeline.format import ggml
from pipeline.format.ggml import Bytes, Floats
from pipeline.format.imatrix import ImportanceMatrix
from pipeline.onepass.order import CHUNK
from pipeline.onepass.rows import SlabJob, convert


@dataclass(frozen=True, slots=True)
class RowRange:
    """Rows of one matrix of a tensor: [start, stop) of all its rows, of which the matrix is number ``matrix``."""

    start: int
    stop: int
    matrix: int


class WorkFile:
    """A GGUF that is read by rows, with a copy beside it whose tensors can be changed. A ``with`` makes and removes the copy.

    Args:
        path: the original; it stays as it is.
        imatrix: the importances by which is rounded.
        executor: runs the rounding.

    Attributes:
        copy: the path of the copy.

    Raises:
        OutputError: the copy does not fit the disk.
    """

    def __init__(self, path: Path, imatrix: ImportanceMatrix | None, executor: Executor) -> None:
        self.path, self.imatrix, self.executor = path, imatrix, executor
        self.copy = path.with_name(f"{path.stem}-probe.gguf")
        self.tensors = read_header(path).tensors
        self._data = np.memmap(path, np.uint8, "r")
        if hasattr(mmap, "MADV_RANDOM"):
            self._data._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
        self._fd = -1

    def __enter__(self) -> Self:
        try:
            shutil.copyfile(self.path, self.copy)
        except OSError as e:
            self.copy.unlink(missing_ok=True)
            raise write_error(e, self.copy, self.path.stat().st_size) from None
        self._fd = os.open(self.copy, os.O_WRONLY | os.O_CLOEXEC)
        return self

    def __exit__(self, *raised: object) -> None:
        os.close(self._fd)
        self.copy.unlink(missing_ok=True)

    def raw(self, name: str, start: int, stop: int) -> Bytes:
        """Rows of a tensor as they are stored, uint8 [rows, bytes per row]."""
        entry = self.tensors[name]
        size = entry.type.row_size(entry.shape[-1])
        begin = entry.offset + start * size
        return np.asarray(self._data[begin : begin + (stop - start) * size]).reshape(stop - start, size)

    def whole(self, name: str) -> Floats:
        """A tensor, float32 in its shape."""
        entry = self.tensors[name]
        raw = self.raw(name, 0, prod(entry.shape[:-1]))
        return ggml.to_float(raw, entry.type, entry.shape[-1]).reshape(entry.shape)

    def rows(self, name: str, rows: RowRange) -> Floats:
        """Rows as they are, float32 [rows, columns]."""
        entry = self.tensors[name]
        return ggml.to_float(self.raw(name, rows.start, rows.stop), entry.type, entry.shape[-1])

    def rounded(self, name: str, rows: RowRange, kind: GGMLType) -> Floats:
        """Rows as ggml rounds them to a type, float32 [rows, columns]."""
        entry, raw = self.tensors[name], self.raw(name, rows.start, rows.stop)
        length = entry.shape[-1]
        job = SlabJob(name, raw, entry.type, length, kind, importance=self.importance(name, rows.matrix))
        return ggml.to_float(convert(job)[0], kind, length)

    def importance(self, name: str, matrix: int = 0) -> Floats | None:
        """The mean squared inputs of a tensor's columns, float32 [columns], of one matrix of it."""
        values = self.imatrix.of(name, self.tensors[name].shape) if self.imatrix else None
        return None if values is None else np.ascontiguousarray(values[matrix])

    def lower(self, names: Sequence[str], kind: GGMLType) -> None:
        """Give tensors of the copy the values that they have after rounding to a type."""
        jobs = [(name, rows) for name in names for rows in row_ranges(self.tensors[name])]
        for _ in self.executor.map(partial(self._lower, kind), *zip(*jobs, strict=True)):
            pass

    def _lower(self, kind: GGMLType, name: str, rows: RowRange) -> None:
        self.put(name, self.rounded(name, rows, kind), rows.start)

    def put(self, name: str, values: Floats, start: int = 0) -> None:
        """Give rows of a tensor of the copy these values, float32 [rows, columns], from row ``start`` on."""
        entry = self.tensors[name]
        stored = ggml.quantize(np.ascontiguousarray(values), entry.type)
        os.pwrite(self._fd, stored.data, entry.offset + start * entry.type.row_size(entry.shape[-1]))

    def restore(self, names: Sequence[str]) -> None:
        """Give tensors of the copy the values of the original again."""
        for name in names:
            entry = self.tensors[name]
            for start in range(entry.offset, entry.offset + entry.nbytes, 1 << 24):
                os.pwrite(self._fd, self._data[start : min(start + (1 << 24), entry.offset + entry.nbytes)].data, start)


def row_ranges(entry: TensorEntry, at_most: int | None = None) -> Iterator[RowRange]:
    """A tensor in pieces, each within one of its matrices.

    Args:
        at_most: so many rows in all, spread evenly, instead of every row.
    """
    shape = entry.shape
    rows, per_matrix = int(np.prod(shape[:-1])), shape[-2]
    step = max(1, CHUNK // shape[-1])
    if at_most is None or rows <= at_most:
        for first in range(0, rows, per_matrix):
            for start in range(first, first + per_matrix, step):
                yield RowRange(start, min(start + step, first + per_matrix), first // per_matrix)
        return
    run = 16  # rows that lie together are read faster
    for start in np.linspace(0, rows - run, max(1, at_most // run)).astype(int).tolist():
        matrix = start // per_matrix
        yield RowRange(start, min(start + run, (matrix + 1) * per_matrix), matrix)
