"""A checkpoint read straight from the Hub: nothing of it is ever on this disk, and yet every byte is proved.

Each shard is read once, front to back, in one request; a thread reads ahead and hashes. What nobody asked for is read and
hashed too, because only the hash of the whole shard is known. It is compared at the end of the shard, so a caller publishes
nothing before ``finish`` has returned.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
from collections.abc import Generator, Iterable, Mapping
from typing import Any

import numpy as np

from agent.errors import BrokenOffError, SourceError
from agent.hub.client import Chunks, Hub, WeightFile
from agent.hub.download import Digest
from pipeline.sources.cache import fresh_digest
from pipeline.sources.checkpoint import Checkpoint, RawRows, TensorInfo
from pipeline.sources.digest import resume, save

PIECE_BYTES = 1 << 20
READ_AHEAD_PIECES = 64
_BRIEF = 16  # hex digits that name a proved shard in a saved state


class StreamCheckpoint(Checkpoint):
    """Tensors of safetensors shards on the Hub.

    Not for several threads at once. State that survives the process is had by ``state`` and given back by ``restore``.
    """

    def __init__(
        self, hub: Hub, commit: str, files: Iterable[WeightFile], heads: Mapping[str, bytes], tensors: Mapping[str, TensorInfo]
    ) -> None:
        """
        Args:
            hub: the repository; commit: its pinned commit.
            files: the shards.
            heads: shard -> its bytes before the first tensor, which ``tensors`` was parsed from.
            tensors: every tensor of the checkpoint.
        """
        self._hub, self._commit = hub, commit
        self._files = {f.name: f for f in files}
        self._heads = {name: (len(head), hashlib.sha256(head).hexdigest()) for name, head in heads.items()}
        self.tensors = tensors
        self._resumable: dict[str, tuple[int, Digest]] = {}
        self._proved: set[str] = set()
        self._current: _Shard | None = None
        self._last = ""

    def rows(self, name: str, start: int, stop: int) -> RawRows:
        """Rows [start, stop) by a request of their own: for small samples, since they are not proved by the shard's hash."""
        info = self.tensors[name]
        begin = info.offset + start * info.row_bytes
        raw = self._hub.read(self._commit, self._files[info.file], begin, begin + (stop - start) * info.row_bytes)
        return np.frombuffer(raw, np.uint8).reshape(stop - start, info.row_bytes)

    def in_order(self, ranges: Iterable[tuple[str, int, int]]) -> Generator[RawRows, None, None]:
        """The rows of each (tensor, start row, stop row), as uint8 [stop - start, row_bytes].

        Ranges come shard by shard, and within a shard their starts ascend; they may overlap. When the last one is taken, the
        shard that it lies in is read to its end and proved.

        Raises:
            SourceError: the Hub fails, or a shard is not what its hash says.
            ValueError: the ranges do not ascend.
        """
        try:
            for name, start, stop in ranges:
                info = self.tensors[name]
                begin = info.offset + start * info.row_bytes
                shard = self._shard(info.file, begin)
                yield shard.take(begin, (stop - start) * info.row_bytes).reshape(stop - start, info.row_bytes)
            self._leave()
        finally:
            self._pause()

    def finish(self, files: Iterable[str] | None = None) -> None:
        """Prove every shard in ``files`` (default: all) that is not proved yet, reading what is left of it.

        Raises:
            SourceError: a shard is not what its hash says.
        """
        self._leave()
        for name in sorted(self._files if files is None else set(files)):
            if self._brief(name) not in self._proved:
                self._shard(name, None)
                self._leave()

    def position(self, file: str) -> int:
        """How many bytes of a shard are read and hashed."""
        if self._current is not None and self._current.file.name == file:
            return self._current.position
        if self._brief(file) in self._proved:
            return self._files[file].size
        return self._resumable[file][0] if file in self._resumable else 0

    def state(self) -> dict[str, Any]:
        """What ``restore`` needs to go on from here with the shard being read, ready for JSON.

        Holds "file" and "position" (bytes). Where the hash cannot be saved, a later run reads the finished part once more.
        """
        shard = self._current
        name = self._last
        known: dict[str, Any] = {"file": name, "position": 0, "proved": sorted(self._proved)}
        if shard is not None and shard.file.name == name:
            position, digest = shard.position, shard.digest()
        elif name in self._resumable:
            position, digest = self._resumable[name]
        else:
            return known
        return {**known, "position": position, "sha256": save(digest), "head": self._heads[name][1]}

    def restore(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on from states of an earlier run (shard -> its ``state``). One that does not fit is as if it were not there."""
        known = {self._brief(name) for name in self._files}
        for name, state in states.items():
            self._proved |= known & set(map(str, state.get("proved") or ()))
            digest, position = resume(state.get("sha256")), state.get("position")
            if digest is None or name not in self._files or not isinstance(position, int):
                continue
            length, head = self._heads[name]
            if state.get("head") == head and length <= position <= self._files[name].size:
                self._resumable[name] = (position, digest)

    def close(self) -> None:
        self._pause()

    def _brief(self, name: str) -> str:
        return str(self._files[name].etag)[:_BRIEF]

    def _shard(self, name: str, begin: int | None) -> _Shard:
        """The open shard, so far that byte ``begin`` can still be read from it."""
        if self._current is not None and self._current.file.name == name:
            return self._current
        self._leave()
        file = self._files[name]
        position, digest = self._resumable.pop(name, (0, None))
        if digest is None or (begin is not None and begin < position):
            position, digest = 0, fresh_digest(file)
        self._proved.discard(self._brief(name))
        self._last = name
        self._current = _Shard(self._hub, self._commit, file, position, digest, *self._heads[name])
        return self._current

    def _pause(self) -> None:
        """Stop reading; the next call goes on where this one was."""
        shard, self._current = self._current, None
        if shard is not None:
            shard.close()
            if shard.position >= self._heads[shard.file.name][0]:
                self._resumable[shard.file.name] = (shard.position, shard.digest())

    def _leave(self) -> None:
        shard, self._current = self._current, None
        if shard is not None:
            with contextlib.closing(shard):
                shard.prove()
                self._proved.add(self._brief(shard.file.name))


class _Shard:
    """One shard on its way past: the pieces that a thread has read and hashed, taken in order."""

    def __init__(
        self, hub: Hub, commit: str, file: WeightFile, position: int, digest: Digest, head_bytes: int, head_digest: str
    ) -> None:
        self.file = file
        self.position = position
        self._where = f"{file.name} of {hub.repo_id}"
        self._before, self._after = digest, digest  # the hash before and after the piece in hand
        self._piece, self._used = b"", 0
        self._last_begin, self._last = position, np.empty(0, np.uint8)  # what a range that overlaps needs again
        self._head_bytes, self._head_digest, self._head = head_bytes, head_digest, hashlib.sha256()
        self._pieces: queue.Queue[tuple[bytes, Digest] | Exception] = queue.Queue(READ_AHEAD_PIECES)
        self._stop = threading.Event()
        chunks = hub.chunks(commit, file, position)
        self._thread = threading.Thread(target=self._read_ahead, args=(chunks, digest.copy()), name="sprig-stream", daemon=True)
        self._thread.start()

    def take(self, begin: int, length: int) -> RawRows:
        """Bytes [begin, begin + length) of the shard; what lies before them is skipped."""
        if begin < self._last_begin:
            raise ValueError(f"{self.file.name} is read in order: byte {begin} comes after byte {self._last_begin}")
        out = np.empty(length, np.uint8)
        held = self._last[begin - self._last_begin :]
        again = held[:length]
        out[: len(again)] = again
        self._advance(max(begin - self.position, 0), None)
        self._advance(length - len(again), out[len(again) :])
        self._last_begin, self._last = begin, held if len(held) > length else out
        return out

    def prove(self) -> None:
        """Read what is left and compare the hash. Raises SourceError."""
        self._advance(self.file.size - self.position, None)
        got = self._after.hexdigest()
        if got != self.file.etag:
            raise SourceError(
                f"{self._where} is not what the Hub lists: expected {self.file.etag}, got {got}; nothing was kept, try again"
            )

    def digest(self) -> Digest:
        """The hash of everything up to ``position``."""
        here = self._before.copy()
        here.update(memoryview(self._piece)[: self._used])
        return here

    def close(self) -> None:
        self._stop.set()
        while not self._pieces.empty():
            self._pieces.get()

    def _advance(self, count: int, into: RawRows | None) -> None:
        done = 0
        while done < count:
            if self._used == len(self._piece):
                self._next_piece()
            step = min(len(self._piece) - self._used, count - done)
            seen = memoryview(self._piece)[self._used : self._used + step]
            if into is not None:
                into[done : done + step] = np.frombuffer(seen, np.uint8)
            if self.position < self._head_bytes:
                self._compare_head(seen)
            self._used += step
            self.position += step
            done += step

    def _next_piece(self) -> None:
        item = self._pieces.get()
        if isinstance(item, Exception):
            raise item
        self._before = self._after
        (self._piece, self._after), self._used = item, 0

    def _compare_head(self, seen: memoryview) -> None:
        """The header that the tensors were parsed from came by another request; it must be the one that is hashed here."""
        self._head.update(seen[: self._head_bytes - self.position])
        if self.position + len(seen) >= self._head_bytes and self._head.hexdigest() != self._head_digest:
            raise SourceError(f"the header of {self._where} changed while it was read; try again")

    def _read_ahead(self, chunks: Chunks, digest: Digest) -> None:
        piece = bytearray()
        try:
            for chunk in chunks:
                piece += chunk
                if len(piece) >= PIECE_BYTES:
                    if not self._give(bytes(piece), digest):
                        return
                    piece.clear()
            self._give(bytes(piece), digest)
            self._put(BrokenOffError(f"{self._where} ended early"))
        except Exception as e:  # it belongs to the thread that takes the pieces
            self._put(e)
        finally:
            chunks.close()

    def _give(self, piece: bytes, digest: Digest) -> bool:
        digest.update(piece)
        return self._put((piece, digest.copy()))

    def _put(self, item: tuple[bytes, Digest] | Exception) -> bool:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._pieces.put(item, timeout=0.2)
                return True
        return False
