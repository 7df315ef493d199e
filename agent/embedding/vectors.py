"""The store of vectors: of each document of a place its fingerprint and the vectors of its pieces, but none of its text.

It can always be made again from the documents, so one that is damaged, or of another Sprig, is begun anew.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import SprigError
from agent.home import home

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

log = logging.getLogger(__name__)

_VERSION = 1  # of the tables, and of how texts are cut (agent.embedding.pieces)
_BUSY_SECONDS = 10.0
_TABLE = """
CREATE TABLE documents (
    place TEXT NOT NULL,
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    stamp TEXT NOT NULL,
    digest TEXT NOT NULL,
    vectors BLOB NOT NULL,
    PRIMARY KEY (place, key)
) STRICT
"""


class VectorStoreError(SprigError):
    """The store of vectors cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a document was when its vectors were made. ``stamp`` is quick to get and may be empty; ``digest`` is of the text."""

    stamp: str
    digest: str


class VectorStore(contextlib.AbstractContextManager["VectorStore"]):
    """All vectors of a person. Other processes may use the same file; a change is on the disk as a whole or not at all."""

    def __init__(self, path: Path | None = None) -> None:
        """Open the store, or make it; by default ``cache/vectors.db`` in SPRIG_HOME. Raises VectorStoreError."""
        self.path = path if path is not None else home() / "cache" / "vectors.db"
        self._lock = threading.RLock()
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._connection = self._open()
        except (OSError, sqlite3.Error) as e:
            raise self._error(e) from None

    def close(self) -> None:
        self._connection.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def known(self, place: str, model: str) -> Mapping[str, Fingerprint]:
        """The documents of a place whose vectors are of this model, by their keys."""
        with self._explained() as connection:
            rows = connection.execute(
                "SELECT key, stamp, digest FROM documents WHERE place = ? AND model = ?", (place, model)
            ).fetchall()
        return {key: Fingerprint(stamp, digest) for key, stamp, digest in rows}

    def put(self, place: str, model: str, found: Iterable[tuple[str, Fingerprint, Vectors]]) -> None:
        """Keep the vectors, float32 [pieces, width], of some documents in the place of what was kept under their keys."""
        rows = [(place, key, model, mark.stamp, mark.digest, vectors.astype("<f4").tobytes()) for key, mark, vectors in found]
        with self._explained() as connection, _transaction(connection):
            connection.executemany("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?)", rows)

    def touch(self, place: str, stamps: Mapping[str, str]) -> None:
        """New stamps of documents, by key, whose text is as it was."""
        rows = [(stamp, place, key) for key, stamp in stamps.items()]
        with self._explained() as connection, _transaction(connection):
            connection.executemany("UPDATE documents SET stamp = ? WHERE place = ? AND key = ?", rows)

    def remove(self, place: str, keys: Collection[str]) -> None:
        """Forget documents."""
        with self._explained() as connection, _transaction(connection):
            connection.executemany("DELETE FROM documents WHERE place = ? AND key = ?", [(place, key) for key in keys])

    def keep_only(self, place: str, model: str) -> None:
        """Forget what other models made of a place."""
        with self._explained() as connection, _transaction(connection):
            connection.execute("DELETE FROM documents WHERE place = ? AND model != ?", (place, model))

    def best(
        self, place: str, model: str, query: Vectors, most: int, wanted: Callable[[str], bool]
    ) -> list[tuple[str, int, float]]:
        """The pieces whose vectors are nearest to that of a query, the best first: key, number of the piece, cosine.

        All vectors are compared: of 10,000 pieces the reading takes longer than the products.

        Args:
            query: float32 [width], 1 long, as are the vectors of the store.
            wanted: whether the document of a key may be found.
        """
        import numpy as np

        width = query.shape[0]
        with self._explained() as connection:
            rows = connection.execute(
                "SELECT key, vectors FROM documents WHERE place = ? AND model = ? AND length(vectors) > 0", (place, model)
            ).fetchall()
        rows = [(key, raw) for key, raw in rows if len(raw) % (4 * width) == 0 and wanted(key)]  # the file may be damaged
        if not rows:
            return []
        scores = np.frombuffer(b"".join(raw for _, raw in rows), "<f4").reshape(-1, width) @ query
        ends = np.cumsum([len(raw) // (4 * width) for _, raw in rows])
        order = np.argsort(-scores)[: max(0, most)]
        found = []
        for i in order.tolist():
            row = int(np.searchsorted(ends, i, "right"))
            found.append((rows[row][0], i - (int(ends[row - 1]) if row else 0), float(scores[i])))
        return found

    def _open(self) -> sqlite3.Connection:
        for _ in range(2):
            connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA secure_delete = ON")
                with _transaction(connection):
                    if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                        connection.execute("DROP TABLE IF EXISTS documents")
                        connection.execute(_TABLE)
                        connection.execute(f"PRAGMA user_version = {_VERSION}")
                return connection
            except sqlite3.DatabaseError as e:
                connection.close()
                if getattr(e, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                    raise
                log.warning("%s was damaged (%s) and is made again", self.path, e)
                for name in (self.path, *(self.path.with_name(self.path.name + end) for end in ("-wal", "-shm"))):
                    name.unlink(missing_ok=True)
        raise sqlite3.OperationalError("the file is damaged")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as e:
                raise self._error(e) from None

    def _error(self, e: Exception) -> VectorStoreError:
        return VectorStoreError(f"{self.path} cannot be used ({e}); it can be deleted, and is made again")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        yield
