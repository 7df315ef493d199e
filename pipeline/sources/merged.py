"""A base model and a LoRA adapter as one checkpoint: each slab of rows is merged when it is read.

The merged weights are float32, as they come out of the sum; nothing is rounded to the base's type in between, so a small change
is not lost before the quantizer sees it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from functools import lru_cache

import numpy as np

from agent.errors import SourceError
from agent.hub.client import Hub, WeightFile
from pipeline.format.ggml import Floats, to_float
from pipeline.sources.adapter import Change, LowRank, merged_tensors
from pipeline.sources.checkpoint import SOURCE_TYPES, Checkpoint, RawRows, TensorInfo
from pipeline.sources.stream import StreamCheckpoint

_LEAST = np.float32(1e-30)  # of the length of a row of zeros, which no magnitude brings back


def floats(checkpoint: Checkpoint, name: str, start: int = 0, stop: int | None = None) -> Floats:
    """Rows of a tensor as float32 [rows, row length]; by default all."""
    info = checkpoint.tensors[name]
    raw = checkpoint.rows(name, start, info.n_rows if stop is None else stop)
    return to_float(np.ascontiguousarray(raw), SOURCE_TYPES[info.dtype], info.row_length)


class Merger:
    """Applies the changes of an adapter, which is kept open, to rows of its base."""

    def __init__(self, adapter: Checkpoint, changes: Mapping[str, Change]) -> None:
        self.adapter, self.changes = adapter, changes
        self._factor = lru_cache(8)(lambda name: floats(adapter, name))  # a matrix is asked for once a slab of its module

    def apply(self, name: str, start: int, rows: Floats) -> Floats:
        """The merged rows from ``start`` on, of these rows of the base (or of the tensor that the adapter has in its place)."""
        change = self.changes[name]
        if change.low_rank is not None:
            rows = self._add(change.low_rank, start, rows)
        if change.picked is not None:
            theirs, places = change.picked
            inside = [(i, place - start) for i, place in enumerate(places) if start <= place < start + len(rows)]
            if inside:
                rows = rows.copy()
                rows[[at for _, at in inside]] = self._factor(theirs)[[i for i, _ in inside]]
        return rows

    def _add(self, change: LowRank, start: int, rows: Floats) -> Floats:
        part = slice(start, start + len(rows))
        scale = np.float32(change.scale)
        b = self._factor(change.b)
        if change.is_bias:
            return np.asarray(rows + scale * b.reshape(1, -1), np.float32)
        a = self._factor(change.a)
        merged = _product(a[:, part].T * scale, b.T) if change.transposed else _product(b[part] * scale, a)
        merged += rows
        if change.magnitude is not None:
            length = np.maximum(np.linalg.norm(merged, axis=1), _LEAST)
            merged *= (self._factor(change.magnitude).ravel()[part] / length)[:, None]
        return merged


_TILE_ROWS, _TILE = 8, 1 << 18  # rows, and multiplications: as many as OpenBLAS does on one thread


def _product(left: Floats, right: Floats) -> Floats:
    """``left @ right`` in tiles so small that BLAS starts no threads for them.

    Those would fight with the quantizer's for the cores (measured on two busy ones: seven times as long).
    """
    out = np.empty((len(left), right.shape[1]), np.float32)
    wide = max(1, _TILE // (_TILE_ROWS * max(1, len(right))))
    for row in range(0, len(left), _TILE_ROWS):
        for column in range(0, right.shape[1], wide):
            tile = slice(row, row + _TILE_ROWS), slice(column, column + wide)
            out[tile] = left[tile[0]] @ right[:, tile[1]]
    return out


def as_bytes(rows: Floats) -> RawRows:
    """Float32 rows as they stand in a checkpoint."""
    raw: RawRows = np.ascontiguousarray(rows, "<f4").view(np.uint8)
    return raw


class MergedCheckpoint(Checkpoint):
    """A base and an adapter, both closed with it."""

    def __init__(self, base: Checkpoint, adapter: Checkpoint, changes: Mapping[str, Change]) -> None:
        self._base, self._merger, self._changes = base, Merger(adapter, changes), changes
        self.tensors = merged_tensors(base.tensors, adapter.tensors, changes)

    def rows(self, name: str, start: int, stop: int) -> RawRows:
        change = self._changes.get(name)
        if change is None:
            return self._base.rows(name, start, stop)
        source, theirs = (self._merger.adapter, change.whole) if change.whole else (self._base, change.base or name)
        if not change.computed:
            return source.rows(theirs, start, stop)
        return as_bytes(self._merger.apply(name, start, floats(source, theirs, start, stop)))

    def close(self) -> None:
        self._base.close()
        self._merger.adapter.close()


class MergedStream(StreamCheckpoint):
    """A base that is read straight from the Hub, and an adapter on this disk. What the Hub sends is proved before it is merged.

    ``tensors`` says where the rows lie at the source; their types are those of ``merged_tensors``.
    """

    def __init__(
        self, hub: Hub, commit: str, files: Iterable[WeightFile], heads: Mapping[str, bytes], tensors: Mapping[str, TensorInfo],
        adapter: Checkpoint, changes: Mapping[str, Change],
    ) -> None:  # fmt: skip
        """
        Args:
            hub, commit, files, heads, tensors: of the base, as of ``StreamCheckpoint``.
            adapter: the adapter; closed with this.
            changes: what it changes.

        Raises:
            SourceError: the adapter makes two tensors of one of the base, which is read only once.
        """
        moved = next((c.name for c in changes.values() if c.whole is None and c.base != c.name), None)
        if moved is not None:
            raise SourceError(
                f"the adapter makes {moved} another matrix than the embedding; a stream reads it once: leave --stream out"
            )
        super().__init__(hub, commit, files, heads, tensors)
        self._merger, self._changes = Merger(adapter, changes), changes
        self._own = {c.name: c.whole for c in changes.values() if c.whole is not None}
        self._ours = {adapter.tensors[name].file for name in self._own.values()}
        self.tensors = {**tensors, **{name: adapter.tensors[theirs] for name, theirs in self._own.items()}}

    def rows(self, name: str, start: int, stop: int) -> RawRows:
        own = self._own.get(name)
        raw = super().rows(name, start, stop) if own is None else self._merger.adapter.rows(own, start, stop)
        return self._merged(name, start, raw)

    def in_order(self, ranges: Iterable[tuple[str, int, int]]) -> Generator[RawRows, None, None]:
        wanted = list(ranges)
        streamed = super().in_order([r for r in wanted if r[0] not in self._own])
        for name, start, stop in wanted:
            raw = self._merger.adapter.rows(self._own[name], start, stop) if name in self._own else next(streamed)
            yield self._merged(name, start, raw)
        streamed.close()

    def finish(self, files: Iterable[str] | None = None) -> None:
        super().finish(None if files is None else [f for f in files if f not in self._ours])

    def close(self) -> None:
        super().close()
        self._merger.adapter.close()

    def _merged(self, name: str, start: int, raw: RawRows) -> RawRows:
        change = self._changes.get(name)
        if change is None or not change.computed:
            return raw
        info = self.tensors[name]
        rows = to_float(np.ascontiguousarray(raw), SOURCE_TYPES[info.dtype], info.row_length)
        return as_bytes(self._merger.apply(name, start, rows))
