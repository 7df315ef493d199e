"""The order in which slabs are read: the output's from mapped files, the source's over HTTP.

Every slab knows its place in the output, so the order changes nothing about the bytes. A stream is read from front to back,
once, so that the hash of every shard can be proved on the way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agent.errors import CheckpointError
from pipeline.architectures.shared.tensor import Index, Tensor
from pipeline.model import TiedHead
from pipeline.onepass.journal import Slab
from pipeline.preflight import Preflight
from pipeline.sources.checkpoint import Checkpoint, RawRows
from pipeline.sources.digest import resume, save, sha256
from pipeline.sources.stream import StreamCheckpoint

CHUNK = 1 << 19  # weights in a slab: 2 MB as float32, so that it stays in a core's cache

Read = tuple[str, int, int]  # rows [start, stop) of a checkpoint tensor


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows that are read together and become one slab."""

    tensor: Tensor
    row: int  # first output row
    offset: int  # in the file
    reads: tuple[Read, ...]
    rows: Index | None = None


def units_of(plan: Preflight, tensor: Tensor, offset: int) -> Iterator[Unit]:
    """The slabs of one tensor. None crosses a source's or an expert's border, since each expert has its own importances."""
    row_size = plan.choices[tensor.name].type.row_size(tensor.row_length)
    if tensor.values is not None:
        yield Unit(tensor, 0, offset, ())
        return
    reads = []
    for piece in tensor.sources:
        stop = plan.model.infos[piece.source].n_rows if piece.stop is None else piece.stop
        reads.append((piece.source, piece.start, stop))
    matrix = tensor.shape[-2] if len(tensor.shape) > 2 else tensor.n_rows
    step = max(1, CHUNK // tensor.row_length)
    if tensor.transposed:
        for i, read in enumerate(reads):
            yield Unit(tensor, i * matrix, offset + i * matrix * row_size, (read,), tensor.row_order)
        return
    if tensor.row_order is not None:
        yield from _reordered(tensor, tensor.row_order, reads, step, offset, row_size)
        return
    row = 0
    for name, start, stop in reads:
        while start < stop:
            n = min(step, stop - start, matrix - row % matrix)
            yield Unit(tensor, row, offset + row * row_size, ((name, start, start + n),))
            start, row = start + n, row + n


def _reordered(tensor: Tensor, order: Index, reads: list[Read], step: int, offset: int, row_size: int) -> Iterator[Unit]:
    """Slabs of a tensor with another order of rows. Where rows stay near their places (within a head), each slab reads only the
    rows around it; otherwise the tensor is read and held whole."""
    matrix = tensor.shape[-2] if len(tensor.shape) > 2 else tensor.n_rows
    experts = [order[row : row + matrix] for row in range(0, tensor.n_rows, matrix)]
    parts = [expert[row : row + step] for expert in experts for row in range(0, matrix, step)]
    spans = [(int(part.min()), int(part.max()) + 1) for part in parts]
    near = sum(stop - start for start, stop in spans) <= 2 * tensor.n_rows and spans == sorted(spans)
    if len(reads) > 1 or not near:
        yield Unit(tensor, 0, offset, tuple(reads), order)
        return
    name, first, _ = reads[0]
    row = 0
    for part, (start, stop) in zip(parts, spans, strict=True):
        yield Unit(tensor, row, offset + row * row_size, ((name, first + start, first + stop),), part - start)
        row += len(part)


def _values(tensor: Tensor) -> RawRows:
    assert tensor.values is not None
    return np.ascontiguousarray(tensor.values, dtype="<f4").reshape(tensor.n_rows, -1).view(np.uint8)


def mapped(checkpoint: Checkpoint, units: Iterable[Unit]) -> Iterator[tuple[Unit, RawRows]]:
    """Units in the order of the file, their rows looked up in mapped memory."""
    for unit in units:
        if unit.tensor.values is not None:
            yield unit, _values(unit.tensor)
            continue
        have = [checkpoint.tensors[name].row_length for name, _, _ in unit.reads]
        pieces = [_rewrapped(checkpoint.rows(*r), h, unit.tensor) for r, h in zip(unit.reads, have, strict=True)]
        yield unit, pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def read_length(tensor: Tensor, have: int) -> int:
    """Weights in a row as it goes to ``convert``, of a source that has ``have``."""
    return have if tensor.transposed or tensor.column_order is not None else tensor.row_length


def _rewrapped(rows: RawRows, have: int, tensor: Tensor) -> RawRows:
    """The same bytes in rows of another length: a convolution [C, 1, K] is a matrix [C, K] as it lies."""
    want = read_length(tensor, have)
    return rows if have == want else np.ascontiguousarray(rows).reshape(-1, rows.shape[1] // have * want)


# (file, position in it, rows, the unit that wants them or None when only the hash does, which of its reads it is)
_Wanted = tuple[str, int, Read, Unit | None, int]


class Streamed:
    """Units in the order of the source, so that each shard is read once, from front to back, and its hash proved at its end."""

    def __init__(self, plan: Preflight, checkpoint: StreamCheckpoint, units: Sequence[Unit], done: Sequence[Slab]) -> None:
        self.checkpoint = checkpoint
        self.infos = checkpoint.tensors
        self.constants = [unit for unit in units if unit.tensor.values is not None]
        self.wanted: list[_Wanted] = sorted(
            ((*self._place(read), read, unit, i) for unit in units for i, read in enumerate(unit.reads)), key=lambda w: w[:2]
        )
        self.shards = {self.infos[piece.source].file for tensor in plan.tensors for piece in tensor.sources}
        self.head = _HeadDigests(plan.model.tied_head) if plan.model.tied_head else None
        begin = self._restore(done)
        if self.head is not None:
            self.shards.add(self.infos[self.head.pair.head].file)
            self._add_heads(self.head, begin)

    def _place(self, read: Read) -> tuple[str, int]:
        info = self.infos[read[0]]
        return info.file, info.offset + read[1] * info.row_bytes

    def _restore(self, done: Sequence[Slab]) -> tuple[str, int]:
        """Take up the running hashes of a killed run, at the last place before the first missing slab. Returns that place."""
        first = self.wanted[0][:2] if self.wanted else (max(self.shards), 1 << 62)
        for slab in reversed(done):
            note = json.loads(slab.note) if slab.note else {}
            place = (note.get("file", ""), note.get("position", 0))
            if note and place <= first and (self.head is None or self.head.restore(note.get("heads"))):
                self.checkpoint.restore({place[0]: note})
                return place
        return ("", 0)

    def _add_heads(self, head: _HeadDigests, begin: tuple[str, int]) -> None:
        """Also read the head, and the part of the embedding that a resumed run would skip."""
        have = {w[2] for w in self.wanted}
        for name in (head.pair.head, head.pair.embedding):
            info = self.infos[name]
            step = max(1, CHUNK // info.row_length)
            for start in range(0, info.n_rows, step):
                read = (name, start, min(start + step, info.n_rows))
                place = self._place(read)
                if read not in have and place >= begin:
                    self.wanted.append((*place, read, None, 0))
        self.wanted.sort(key=lambda w: w[:2])

    def __iter__(self) -> Iterator[tuple[Unit, RawRows]]:
        for unit in self.constants:
            yield unit, _values(unit.tensor)
        pieces: dict[int, dict[int, RawRows]] = {}
        for (_, _, read, owner, i), raw in zip(self.wanted, self.checkpoint.in_order(w[2] for w in self.wanted), strict=True):
            if self.head is not None:
                self.head.update(read[0], raw)
            if owner is None:
                continue
            got = pieces.setdefault(owner.offset, {})
            got[i] = _rewrapped(raw, self.infos[read[0]].row_length, owner.tensor)
            if len(got) == len(owner.reads):
                del pieces[owner.offset]
                yield owner, got[0] if len(got) == 1 else np.concatenate([got[k] for k in range(len(got))])

    def note(self) -> str:
        """The state of the running hashes, for the journal."""
        state = self.checkpoint.state()
        return json.dumps(state | {"heads": self.head.save()} if self.head is not None else state)

    def finish(self) -> None:
        """Prove every shard that holds anything of the model. Raises SourceError or CheckpointError."""
        self.checkpoint.finish(self.shards)
        if self.head is not None:
            self.head.compare()


class _HeadDigests:
    """Proves during the pass that the head, which is left out, equals the embedding."""

    def __init__(self, pair: TiedHead) -> None:
        self.pair = pair
        self.digests = {pair.head: sha256(), pair.embedding: sha256()}

    def update(self, name: str, raw: RawRows) -> None:
        if name in self.digests:
            self.digests[name].update(np.ascontiguousarray(raw).data)

    def save(self) -> dict[str, str | None]:
        return {name: save(digest) for name, digest in self.digests.items()}

    def restore(self, saved: Mapping[str, object] | None) -> bool:
        """Take up both digests of an earlier run. Returns whether that worked."""
        restored = {name: resume((saved or {}).get(name)) for name in self.digests}
        if any(digest is None for digest in restored.values()):
            return False
        self.digests = {name: digest for name, digest in restored.items() if digest is not None}
        return True

    def compare(self) -> None:
        head, embedding = self.digests.values()
        if head.hexdigest() != embedding.hexdigest():
            raise CheckpointError(
                f"config.json ties the head to the embedding, but {self.pair.head} differs from it; "
                "quantize without --stream, which writes both"
            )
