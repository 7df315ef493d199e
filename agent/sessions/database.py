"""The database of the sessions as the rest uses it: one connection, one lock, transactions that are on the disk when they end."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from agent.sessions.records import SessionError
from agent.sessions.schema import connect, explained, transaction

log = logging.getLogger(__name__)


class Database:
    """An open database. Any thread may use it; each waits for its turn."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection, self.read_only = connect(path)
        self._closed = False
        log.info("sessions: %s opened%s", path, " read-only" if self.read_only else "")

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                with contextlib.suppress(sqlite3.Error):
                    self._connection.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone."""
        with self._lock:
            if self._closed:
                raise SessionError(f"the store {self.path} was closed: open it again")
            with explained(self.path):
                yield self._connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The connection within a transaction, for this thread alone."""
        with self.reading() as connection:
            if self.read_only:
                raise SessionError(
                    f"{self.path} can only be read: its file or disk is read-only; name another place with SPRIG_HOME"
                )
            with transaction(connection):
                yield connection
