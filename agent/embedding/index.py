"""Documents searched by what they mean: only what is new or was changed is embedded, and the nearest pieces are found."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from agent.embedding.embedder import Embedder
from agent.embedding.pieces import Piece, cut
from agent.embedding.vectors import Fingerprint, VectorStore

_TOGETHER = 64  # pieces that are embedded, and written, at once


@dataclass(frozen=True, slots=True)
class Searchable:
    """Something that can be found.

    Attributes:
        key: its name among the documents of its place; "/" separates folders.
        stamp: changes when it does, and is quicker to get than the text; empty where there is none.
        read: its text; None when it has none now.
    """

    key: str
    stamp: str
    read: Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh did: documents seen, and of them those that were embedded now. ``complete``: none is left for later."""

    documents: int
    embedded: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Match:
    """A piece that was found: of which document, its lines counted from 1, its text, and the cosine with the query."""

    key: str
    first: int
    last: int
    text: str
    score: float


class Index:
    """The documents of one place, such as a folder, and one model. What another model made of the place is forgotten."""

    def __init__(self, store: VectorStore, embedder: Embedder, place: str) -> None:
        self._store, self._embedder, self._place = store, embedder, place
        self._model = f"{embedder.identity} {embedder.prompts['document']}"

    def refresh(
        self,
        documents: Iterable[Searchable],
        *,
        seconds: float | None = None,
        cancelled: threading.Event | None = None,
        on_document: Callable[[int, int], None] = lambda seen, embedded: None,
    ) -> Refreshed:
        """Bring the store up to date with the documents; what was done stays when it is broken off.

        Args:
            documents: all of the place; what is kept and not among them is forgotten.
            seconds: after which the rest is left for the next time.
            cancelled: set from any thread, it ends the work with SprigError.
            on_document: told how many were seen and how many embedded.
        """
        end = None if seconds is None else time.monotonic() + seconds
        self._store.keep_only(self._place, self._model)
        known = self._store.known(self._place, self._model)
        batch, seen, stamps, embedded = _Batch(), set[str](), dict[str, str](), 0
        complete = True
        for document in documents:
            if end is not None and time.monotonic() > end:
                complete = False
                break
            seen.add(document.key)
            before = known.get(document.key)
            if before is not None and document.stamp and before.stamp == document.stamp:
                continue
            text = document.read() or ""
            mark = Fingerprint(document.stamp, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())
            if before is not None and before.digest == mark.digest:
                if before.stamp != mark.stamp:
                    stamps[document.key] = mark.stamp
                continue
            embedded += 1
            batch.add(document.key, mark, cut(text))
            if batch.full:
                self._write(batch, cancelled)
                batch = _Batch()
                on_document(len(seen), embedded)
        self._write(batch, cancelled)
        self._store.touch(self._place, stamps)
        if complete:
            self._store.remove(self._place, known.keys() - seen)
        on_document(len(seen), embedded)
        return Refreshed(len(seen), embedded, complete)

    def search(
        self,
        query: str,
        read: Callable[[str], str | None],
        *,
        most: int = 5,
        wanted: Callable[[str], bool] = lambda key: True,
        cancelled: threading.Event | None = None,
    ) -> list[Match]:
        """The pieces that are nearest to a query, the best first, of one that overlaps a better one only that.

        Args:
            read: the text of a document by its key; what has none any more is left out.
            wanted: whether the document of a key may be found.
            cancelled: as in ``refresh``.
        """
        before = self._embedder.prompts["query"]
        vector = self._embedder.embed([query], prompt=before, truncate=True, cancelled=cancelled)[0]
        matches: list[Match] = []
        taken: set[tuple[str, int]] = set()
        texts: dict[str, list[Piece]] = {}
        for key, number, score in self._store.best(self._place, self._model, vector, 4 * most + 20, wanted):
            if len(matches) == most:
                break
            if {(key, number - 1), (key, number + 1)} & taken:
                continue
            if key not in texts:
                texts[key] = cut(read(key) or "")
            if number < len(texts[key]):
                piece = texts[key][number]
                taken.add((key, number))
                matches.append(Match(key, piece.first, piece.last, piece.text, score))
        return matches

    def _write(self, batch: _Batch, cancelled: threading.Event | None) -> None:
        if not batch.documents:
            return
        texts = [piece.text for _, _, pieces in batch.documents for piece in pieces]
        vectors = self._embedder.embed(texts, prompt=self._embedder.prompts["document"], truncate=True, cancelled=cancelled)
        rows, start = [], 0
        for key, mark, pieces in batch.documents:
            rows.append((key, mark, vectors[start : start + len(pieces)]))
            start += len(pieces)
        self._store.put(self._place, self._model, rows)


class _Batch:
    """Documents that are embedded together."""

    def __init__(self) -> None:
        self.documents: list[tuple[str, Fingerprint, Sequence[Piece]]] = []
        self._pieces = 0

    def add(self, key: str, mark: Fingerprint, pieces: Sequence[Piece]) -> None:
        self.documents.append((key, mark, pieces))
        self._pieces += len(pieces)

    @property
    def full(self) -> bool:
        return self._pieces >= _TOGETHER or len(self.documents) >= 4 * _TOGETHER
