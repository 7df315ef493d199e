"""A damaged store is set aside, never deleted; what can be read of it goes into a new one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.sessions.database import NOT_UNDERSTOOD, Database, explained, has_fts5, insert, refuse_others, search_is_set_up
from agent.sessions.records import COLUMNS, DamagedStore, SessionError, stored
from agent.sessions.session import INFO, info_of

log = logging.getLogger(__name__)

_SESSION_COLUMNS = (
    "number, id, title, created, updated, touched, model, system, tools, settings, parent_session, parent_message, leaf"
)
_MESSAGE_COLUMNS = f"session, {COLUMNS}"
_BESIDE = ("", "-wal", "-shm")
_SPAN = 1 << 20  # row numbers are tried up to here when the table cannot say how far they go
_SHARED_LOCK = 128  # SQLite's wal-index format: each connection holds a lock on this byte of the -shm file
_TRIES = 100_000  # reads that may fail in one table; more is not damage, it is rubbish


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What became of a damaged store.

    Attributes:
        set_aside: where the damaged file lies now, as it was.
        sessions, messages: how many could be read and are in the new store.
        lost: rows that were there and could not be read, or not be understood.
    """

    set_aside: Path
    sessions: int
    messages: int
    lost: int


def repair(path: Path) -> Salvaged | None:
    """Check a store to its last row, and save what can be read if it is damaged.

    Returns:
        What became of it; None when it is sound, and then nothing was changed.

    Raises:
        SessionError: there is no such file, another process uses it, it is of something else, or there is no room for the copies.
    """
    if not path.is_file():
        raise SessionError(f"there is no store {path} to repair: the first conversation makes one")
    try:
        _check(path)
    except DamagedStore:
        return salvage(path)
    return None


def _check(path: Path) -> None:
    """Read everything. DamagedStore when something cannot be read or understood; the file stays as it is."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    with contextlib.closing(connection), explained(path):
        problem = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if problem != "ok":
            raise DamagedStore(f"{path} is damaged: {problem}")
        if refuse_others(connection, path) == 0:
            raise DamagedStore(f"{path} is empty")
        for query, read in ((f"SELECT {COLUMNS} FROM messages", stored), (INFO, info_of)):
            for row in connection.execute(query):
                try:
                    read(row)
                except NOT_UNDERSTOOD as e:
                    raise DamagedStore(f"{path} is damaged: row {row[0]} cannot be understood ({e})") from None
    _check_search(path)


def _check_search(path: Path) -> None:
    """Compare the full-text index with the messages, which FTS5 does in the form of a write that changes nothing."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
    with contextlib.closing(connection), explained(path):
        if has_fts5(connection) and search_is_set_up(connection):
            try:
                connection.execute("INSERT INTO messages_search (messages_search, rank) VALUES ('integrity-check', 1)")
            except sqlite3.OperationalError as e:
                if getattr(e, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_READONLY:
                    raise


def salvage(path: Path) -> Salvaged:
    """Set a damaged store aside and put a new one in its place with all that can be read.

    The file is read from a copy, row by row; a row that lies on a broken page is left out. SessionError when there is no such
    file, another process uses it, or there is no room for the copies.
    """
    if not path.is_file():
        raise SessionError(f"there is no store {path} to save")
    _refuse_when_in_use(path)
    try:
        return _salvage(path)
    except OSError as e:
        raise SessionError(f"{path} could not be saved ({e.strerror or e}) and is as it was: make room beside it") from None


def _refuse_when_in_use(path: Path) -> None:
    """What another process still writes would go into the file that is set aside."""
    with contextlib.suppress(FileNotFoundError), Path(f"{path}-shm").open("r+b") as shared:
        try:
            fcntl.lockf(shared, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _SHARED_LOCK)
        except BlockingIOError:
            raise SessionError(f"{path} is in use by another process: end every chat first, then repair it") from None


def _salvage(path: Path) -> Salvaged:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".salvage-") as place:
        copy = Path(place) / "damaged.db"
        for ending in _BESIDE[:2]:
            if Path(f"{path}{ending}").exists():
                shutil.copyfile(f"{path}{ending}", f"{copy}{ending}")
        new = Path(place) / "new.db"
        sessions, messages, lost = _copy_rows(copy, new)
        aside = _free_name(path)
        # The log goes first: a database without its log is older, a log without its database is nothing.
        for ending in reversed(_BESIDE):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{path}{ending}", f"{aside}{ending}")  # noqa: PTH104
        new.rename(path)
    log.warning("sessions: %s was damaged; it is now %s, %d messages were saved", path, aside, messages)
    return Salvaged(aside, sessions, messages, lost)


def _free_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return aside


def _copy_rows(damaged: Path, new: Path) -> tuple[int, int, int]:
    target = Database(new)
    lost: list[int] = []
    sessions = messages = 0
    source = sqlite3.connect(damaged, isolation_level=None)
    try:
        source.execute("PRAGMA writable_schema = ON")  # otherwise SQLite reads nothing of a file that was cut off
        with target.writing() as connection:
            connection.execute("PRAGMA defer_foreign_keys = ON")
            for row in _rows(source, "sessions", "number", _SESSION_COLUMNS, lost):
                row = (*row[:8], _json_or(row[8], "[]"), _json_or(row[9], "{}"), *row[10:])
                sessions += _insert(connection, "sessions", _SESSION_COLUMNS, row, lost)
            for row in _rows(source, "messages", "id", _MESSAGE_COLUMNS, lost):
                try:
                    stored(row[1:])
                except NOT_UNDERSTOOD:
                    lost.append(0)
                    continue
                messages += _insert(connection, "messages", _MESSAGE_COLUMNS, row, lost)
            _reconnect(connection)
        with target.reading() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        source.close()
        target.close()
    return sessions, messages, len(lost)


def _json_or(text: object, instead: str) -> object:
    """The tools or the settings of a session; a session is worth more than they are."""
    try:
        return text if type(json.loads(str(text))) is type(json.loads(instead)) else instead
    except ValueError:
        return instead


def _insert(connection: sqlite3.Connection, table: str, columns: str, row: tuple[object, ...], lost: list[int]) -> int:
    try:
        insert(connection, table, dict(zip(columns.split(", "), row, strict=True)))
    except (sqlite3.IntegrityError, sqlite3.DataError):
        lost.append(0)
        return 0
    return 1


def _reconnect(connection: sqlite3.Connection) -> None:
    """Let no row point to one that was lost."""
    connection.execute(
        "INSERT INTO sessions (number, id, title, created, updated, touched, model, system, tools, settings)"
        " SELECT DISTINCT session, 'saved' || session, '', 0, 0, 0, '', '', '[]', '{}' FROM messages"
        " WHERE session NOT IN (SELECT number FROM sessions)"
    )
    connection.execute("UPDATE sessions SET parent_session = NULL WHERE parent_session NOT IN (SELECT number FROM sessions)")
    # A message whose predecessor is lost follows the newest one before it in its session: the order of the words is kept.
    before = "SELECT max(o.id) FROM messages o WHERE o.session = messages.session AND o.id < messages.id"
    connection.execute(f"UPDATE messages SET parent = ({before}) WHERE parent NOT IN (SELECT id FROM messages)")
    connection.execute(
        "UPDATE sessions SET leaf = (SELECT max(id) FROM messages WHERE session = number)"
        " WHERE leaf IS NULL OR leaf NOT IN (SELECT id FROM messages WHERE session = number)"
    )


def _rows(source: sqlite3.Connection, table: str, key: str, columns: str, lost: list[int]) -> Iterator[tuple[object, ...]]:
    """Every row that can be read: whole stretches where they are sound, single rows around a broken page."""
    pending, failed = [(1, _last(source, table, key))], 0
    query = f"SELECT {columns} FROM {table} WHERE {key} BETWEEN ? AND ?"
    while pending and failed < _TRIES:
        first, last = pending.pop()
        if first > last:
            continue
        try:
            found = source.execute(query, (first, last)).fetchall()
        except (sqlite3.Error, UnicodeDecodeError):
            failed += 1
            if first == last:
                lost.append(first)
            else:
                middle = (first + last) // 2
                pending += [(middle + 1, last), (first, middle)]
            continue
        yield from found


def _last(source: sqlite3.Connection, table: str, key: str) -> int:
    queries = (f"SELECT max({key}) FROM {table}", f"SELECT seq FROM sqlite_sequence WHERE name = '{table}'")
    answers = []
    for query in queries:
        with contextlib.suppress(sqlite3.Error):
            row = source.execute(query).fetchone()
            answers.append(int(row[0] or 0) if row else 0)
    if answers:
        return max(answers)
    # Is anything of the table there at all?
    try:
        source.execute(f"SELECT {key} FROM {table} LIMIT 0")
    except sqlite3.Error:
        return 0
    return _SPAN
