"""The database of the sessions: its tables, how it is opened and used, and what SQLite's errors mean to a person.

Durability rests on SQLite's write-ahead log with ``synchronous=FULL``: a transaction that was committed is on the disk
(https://www.sqlite.org/pragma.html#pragma_synchronous), also after kill -9 and loss of power.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sqlite3
import stat
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from agent.files import free_disk
from agent.home import home
from agent.sessions.records import DamagedStore, SessionError, UnwritableStore

log = logging.getLogger(__name__)

T = TypeVar("T")

VERSION = 1
_LEAST_ROOM = 1_000_000  # bytes of the disk that a conversation is begun with
BUSY_SECONDS = 10.0  # how long a writer waits for another process

_TABLES = """
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    touched INTEGER NOT NULL,
    model TEXT NOT NULL,
    system TEXT NOT NULL,
    tools TEXT NOT NULL,
    settings TEXT NOT NULL,
    parent_session INTEGER REFERENCES sessions (number) ON DELETE SET NULL,
    parent_message INTEGER,
    leaf INTEGER
) STRICT;
CREATE INDEX sessions_touched ON sessions (touched);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session INTEGER NOT NULL REFERENCES sessions (number) ON DELETE CASCADE,
    parent INTEGER REFERENCES messages (id),
    role TEXT NOT NULL,
    text TEXT NOT NULL,
    thinking TEXT NOT NULL,
    calls TEXT NOT NULL,
    call_id TEXT NOT NULL,
    name TEXT NOT NULL,
    images TEXT NOT NULL,
    state TEXT NOT NULL,
    created REAL NOT NULL,
    ok INTEGER,
    data TEXT,
    seconds REAL,
    tokens BLOB,
    fingerprint TEXT NOT NULL,
    usage TEXT
) STRICT;
CREATE INDEX messages_session ON messages (session, id);
CREATE INDEX messages_parent ON messages (parent);
"""

# An index over the messages that holds no copy of their text. The triggers are its sign of being up to date: a Python
# whose SQLite has no FTS5 takes them away before it writes, and the next one that has FTS5 builds the index anew.
_SEARCH_TABLE = """
CREATE VIRTUAL TABLE IF NOT EXISTS messages_search USING fts5 (
    text, thinking, calls, content='messages', content_rowid='id', tokenize="unicode61 remove_diacritics 2"
)
"""
_REMOVE = (
    "INSERT INTO messages_search (messages_search, rowid, text, thinking, calls)"
    " VALUES ('delete', old.id, old.text, old.thinking, old.calls);"
)
_ADD = "INSERT INTO messages_search (rowid, text, thinking, calls) VALUES (new.id, new.text, new.thinking, new.calls);"
_TRIGGERS = {
    "search_insert": f"AFTER INSERT ON messages BEGIN {_ADD} END",
    "search_delete": f"AFTER DELETE ON messages BEGIN {_REMOVE} END",
    "search_update": f"AFTER UPDATE OF text, thinking, calls ON messages BEGIN {_REMOVE} {_ADD} END",
}


def _first_tables(connection: sqlite3.Connection) -> None:
    for statement in filter(str.strip, _TABLES.split(";\n")):
        connection.execute(statement)


# The step at index N brings a database of version N to N + 1.
MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_first_tables,)


class Database:
    """An open database. Any thread may use it; each waits for its turn."""

    def __init__(self, path: Path, *, memory: bool = False) -> None:
        """Open a file, or with ``memory`` a copy of it that goes with this process."""
        self.path, self.kept = path, not memory
        self._lock = threading.RLock()  # SQLite itself waits no longer than BUSY_SECONDS for another process
        self._owner = os.getpid()
        self._connection, self.read_only = (_in_memory(path), False) if memory else connect(path)
        self._logs: frozenset[tuple[str, int]] = frozenset() if memory else _log_files(path)
        self._closed = False
        log.info("sessions: %s opened%s", path, " read-only" if self.read_only else "")

    def close(self) -> None:
        if os.getpid() != self._owner:  # a fork: to close a connection that its parent uses may harm the file
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                with contextlib.suppress(sqlite3.Error):
                    self._connection.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone."""
        if os.getpid() != self._owner:
            raise SessionError(f"the store {self.path} was opened by another process; a forked process opens it again")
        with self._lock:
            if self._closed:
                raise SessionError(f"the store {self.path} was closed: open it again")
            with explained(self.path):
                yield self._connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The connection within a transaction, for this thread alone."""
        with self.reading():
            if self.read_only:
                raise UnwritableStore(
                    f"{self.path} can only be read: its file or disk is read-only; name another place with SPRIG_HOME"
                )
            with transaction(self._on_the_disk()) as connection:
                yield connection

    def rows(self, query: str, values: Any, read: Callable[[Sequence[Any]], T]) -> list[T]:
        """What ``read`` makes of each row of a query. DamagedStore when it cannot make sense of one."""
        with self.reading() as connection, understood(self.path):
            return [read(row) for row in connection.execute(query, values).fetchall()]

    def _on_the_disk(self) -> sqlite3.Connection:
        """The connection, after a look whether its log is still the one that others find beside the file."""
        now = _log_files(self.path) if self.kept else self._logs
        if now != self._logs:
            if now - self._logs:
                raise SessionError(
                    f"the log of {self.path} was replaced by another program; end every chat, then `sprig sessions repair` looks "
                    "whether the store is sound"
                )
            # A log that somebody removed lives on as long as this connection: what stands in it goes into the file.
            log.warning("sessions: somebody removed the log of %s; it is written anew", self.path)
            if self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise SessionError(f"the log of {self.path} was removed while another process reads it; try again")
            self._connection.close()
            self._connection, self.read_only = connect(self.path)
            self._logs = _log_files(self.path)
        return self._connection

    def try_to_write(self) -> None:
        """Write what is there already. UnwritableStore when that cannot be done, or there is no room for what will be said."""
        with self.writing() as connection:
            connection.execute(f"PRAGMA user_version = {VERSION}")
        if free_disk(self.path.parent) < _LEAST_ROOM:
            raise UnwritableStore(f"the disk is full: there is no room beside {self.path}")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Whatever SQLite raises inside becomes a SessionError in one line."""
    try:
        yield
    except sqlite3.Error as e:
        raise explain(e, path) from None
    except UnicodeDecodeError as e:  # of a message of SQLite's that quotes what is damaged
        raise _damaged(path, str(e)) from None


def _log_files(path: Path) -> frozenset[tuple[str, int]]:
    """The log files beside a database, and their inodes: they stay the same as long as anybody has it open."""
    found = set()
    for ending in ("-wal", "-shm"):
        with contextlib.suppress(OSError):
            found.add((ending, Path(f"{path}{ending}").stat().st_ino))
    return frozenset(found)


# What reading a row raises that holds something else than Sprig wrote.
NOT_UNDERSTOOD = (ValueError, TypeError, KeyError, AttributeError, struct.error)


@contextlib.contextmanager
def understood(path: Path) -> Iterator[None]:
    """A row inside that is not as Sprig wrote it is a damaged store."""
    try:
        yield
    except NOT_UNDERSTOOD as e:
        raise _damaged(path, f"a row cannot be understood: {e}") from None


# What an error of SQLite means, and what to do.
_MEANINGS = {
    sqlite3.SQLITE_FULL: "the disk is full: {path} could not be written; make room, nothing that was saved is lost",
    sqlite3.SQLITE_READONLY: "{path} cannot be written: the file or its disk is read-only; name another place with SPRIG_HOME",
    sqlite3.SQLITE_CANTOPEN: "{path} cannot be opened: check that its folder exists and may be written, or set SPRIG_HOME",
    sqlite3.SQLITE_IOERR: "{path}: the disk failed ({error}); check the disk before you go on",
}
_UNWRITABLE = frozenset(_MEANINGS)
_MEANINGS |= dict.fromkeys(
    (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED),
    f"{{path}} is in use by another process for more than {BUSY_SECONDS:.0f} s: end it, or try again",
)


def explain(e: sqlite3.Error, path: Path) -> SessionError:
    primary = getattr(e, "sqlite_errorcode", -1) & 0xFF
    # Python's own complaint, of a text that is not UTF-8, has no number.
    if primary in _DAMAGE or (primary == 0xFF and isinstance(e, sqlite3.OperationalError)):
        return _damaged(path, str(e))
    kind = UnwritableStore if primary in _UNWRITABLE else SessionError
    return kind(_MEANINGS.get(primary, "{path}: {error}").format(path=path, error=e))


# Sprig's statements are always the same: an error in one, a table that is not there or a row that contradicts another one is the
# file's fault.
_DAMAGE = frozenset({
    sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_FORMAT,
})  # fmt: skip


def _damaged(path: Path, why: str) -> DamagedStore:
    named = "" if path == home() / "sessions.db" else f" {shlex.quote(str(path))}"
    return DamagedStore(
        f"{path} is damaged ({why}) and was left as it is: `sprig sessions repair{named}` sets it aside and "
        "saves what can be read"
    )


def connect(path: Path) -> tuple[sqlite3.Connection, bool]:
    """Open the store's database, make it when it is not there, bring its tables up to date.

    Returns:
        The connection, which any thread may use under a lock, and whether it can only be read.
    """
    try:
        _make(path)
        writable = True
    except OSError as e:
        if not path.is_file():
            raise UnwritableStore(f"{path} cannot be made: {e.strerror}; name another place with SPRIG_HOME") from None
        writable = False
    if path.stat().st_size == 0:
        raise _damaged(path, "it is empty, and a store never is")
    with explained(path):
        if writable:
            try:
                return _open(path), False
            except sqlite3.OperationalError as e:
                if getattr(e, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                    raise
        return _open_read_only(path), True


def _make(path: Path) -> None:
    """A store that only its owner may read, if there is none; the log files beside it inherit that.

    It gets its name when it is whole: whoever finds an empty file knows that it held something.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.path.lexists(path):
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as place:
            new = Path(place) / path.name
            new.touch(0o600)
            with explained(path):
                _open(new).close()
            try:
                os.link(new, path)
            except FileExistsError:
                pass  # another process was faster
            except OSError:  # a file system without links
                new.rename(path)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise SessionError(f"{path} is not a regular file: name another place with SPRIG_HOME")
        if status.st_mode & 0o077 and status.st_uid == os.geteuid():
            os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def _open(path: Path) -> sqlite3.Connection:
    return _set_up(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False), path)


def _in_memory(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    if path.is_file() and path.stat().st_size:
        # A write-ahead log that cannot be read along hides what there is; a new conversation needs none of it.
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_open_read_only(path)) as kept:
            kept.backup(connection)
    return _set_up(connection, path)


def _set_up(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    try:
        refuse_others(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")
        _migrate(connection, path)
        _set_up_search(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _open_read_only(path: Path) -> sqlite3.Connection:
    # A disk that cannot be written has no place for the shared memory of a write-ahead log; without a log nothing is missed.
    wal = path.with_name(path.name + "-wal")
    still = "&immutable=1" if not wal.exists() or wal.stat().st_size == 0 else ""
    uri = f"{path.absolute().as_uri()}?mode=ro{still}"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        if refuse_others(connection, path) < VERSION:
            raise SessionError(f"{path} is read-only and empty or of an older Sprig: copy it to a disk that can be written")
    except BaseException:
        connection.close()
        raise
    return connection


def refuse_others(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the store, 0 of a new file. SessionError when a newer Sprig or another program wrote it."""
    # One statement sees one state of the file: another process may be making it.
    version: int
    version, tables = connection.execute(
        "SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version"
    ).fetchone()
    if version > VERSION:
        raise SessionError(
            f"{path} was written by a newer Sprig (version {version} of the store, this one knows {VERSION}): "
            "update Sprig, or name another place with SPRIG_HOME"
        )
    if version == 0 and tables:
        raise SessionError(f"{path} is a database of something else: name another place with SPRIG_HOME")
    return version


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    if refuse_others(connection, path) == VERSION:
        return
    with transaction(connection):
        # Another process may have been faster while this one waited for the lock.
        for step in MIGRATIONS[refuse_others(connection, path) :]:
            step(connection)
        connection.execute(f"PRAGMA user_version = {VERSION}")


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing, and on the disk when it is left without an error."""
    connection.execute("BEGIN IMMEDIATE")
    with connection:  # commits, or rolls back
        yield connection


def insert(connection: sqlite3.Connection, table: str, columns: Mapping[str, Any]) -> int:
    """Add a row, and return its number."""
    query = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    number = connection.execute(query, tuple(columns.values())).lastrowid
    assert number is not None
    return number


def has_fts5(connection: sqlite3.Connection) -> bool:
    """Whether this Python's SQLite has the full-text index."""
    return any(row[0] == "fts5" for row in connection.execute("SELECT name FROM pragma_module_list"))


def search_is_set_up(connection: sqlite3.Connection) -> bool:
    """Whether the full-text index covers every message."""
    marks = ", ".join("?" * len(_TRIGGERS))
    query = f"SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND name IN ({marks})"
    return bool(connection.execute(query, tuple(_TRIGGERS)).fetchone()[0] == len(_TRIGGERS))


def _set_up_search(connection: sqlite3.Connection) -> None:
    able = has_fts5(connection)
    if able == search_is_set_up(connection):
        return
    with transaction(connection):
        if not able:
            for name in _TRIGGERS:
                connection.execute(f"DROP TRIGGER IF EXISTS {name}")
        elif not search_is_set_up(connection):
            connection.execute(_SEARCH_TABLE)
            for name, body in _TRIGGERS.items():
                connection.execute(f"CREATE TRIGGER IF NOT EXISTS {name} {body}")
            connection.execute("INSERT INTO messages_search (messages_search) VALUES ('rebuild')")


def forget_words(connection: sqlite3.Connection) -> None:
    """Write the full-text index anew without the words of what was deleted; until then they stay in it, marked as gone."""
    if search_is_set_up(connection):
        connection.execute("INSERT INTO messages_search (messages_search) VALUES ('optimize')")
