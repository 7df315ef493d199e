"""The process that queries a SQLite file: reads it, and nothing else, within limits.

The database is opened read-only; besides, an authorizer lets nothing but reading through, because ATTACH and some pragmas would
write or read elsewhere even so. Sources: SQLite's C interface documents on sqlite3_set_authorizer, URI filenames and limits.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent.errors import SprigError
from agent.tools.builtin.root import Root

MAX_ROWS = 200
MAX_CELL = 500
MAX_TEXT = 60_000
_PRAGMAS = frozenset({"table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list", "database_list"})
_FORBIDDEN = frozenset({"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"})
_READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, 33})  # 33 is SQLITE_RECURSIVE


class SqlError(SprigError):
    """A query cannot be run; the message is for the model."""


def query(job: dict[str, Any]) -> dict[str, Any]:
    """{"root", "path", "sql", "seconds"} -> {"columns", "rows", "more"}; cells are JSON values."""
    root = Root(Path(job["root"]))
    with root.file(job["path"]) as fd:
        header = os.pread(fd, 20, 0)
    if header[:16] != b"SQLite format 3\0":
        raise SqlError(f"{job['path']} is no SQLite database")
    place = root.path.joinpath(*root.parts(job["path"]))
    deadline = time.monotonic() + job["seconds"]
    connection = _open(place, wal=header[18:20] == b"\2\2")
    try:
        connection.set_authorizer(_authorize)
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 1000)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000_000)
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 100_000)
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        return _rows(connection, job["sql"])
    except sqlite3.OperationalError as e:
        if "interrupted" in str(e):
            raise SqlError(f"the query took more than {job['seconds']:g} s: limit it") from None
        raise SqlError(f"SQL error: {e}") from None
    except sqlite3.DatabaseError as e:
        if "not authorized" in str(e) or "prohibited" in str(e):
            raise SqlError("only reading is possible: SELECT, and PRAGMA table_info or table_list") from None
        raise SqlError(f"SQL error: {e}") from None
    except sqlite3.Warning:
        raise SqlError("give one statement at a time") from None
    finally:
        connection.close()


def _open(place: Path, wal: bool) -> sqlite3.Connection:
    uri = f"file:{quote(str(place))}?mode=ro"
    # A database in WAL mode needs its -shm file, which may be neither there nor ours to make; at rest it can be read without.
    at_rest = wal and not os.path.exists(f"{place}-wal")  # noqa: PTH110
    connection = sqlite3.connect(uri + ("&immutable=1" if at_rest else ""), uri=True, timeout=2, cached_statements=0)
    try:
        connection.execute("PRAGMA query_only = 1")
        connection.execute("PRAGMA trusted_schema = 0")  # views and triggers in a stranger's file
        connection.execute("PRAGMA temp_store = 2")
    except sqlite3.DatabaseError as e:
        connection.close()
        raise SqlError(f"the database cannot be opened: {e}") from None
    return connection


def _authorize(action: int, first: str | None, second: str | None, database: str | None, source: str | None) -> int:
    allowed = (
        action in _READING
        or (action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in _FORBIDDEN)
        or (action == sqlite3.SQLITE_PRAGMA and (first or "").lower() in _PRAGMAS)
    )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _rows(connection: sqlite3.Connection, sql: str) -> dict[str, Any]:
    cursor = connection.execute(sql)
    columns = [str(column[0]) for column in cursor.description or ()]
    rows: list[list[Any]] = []
    size = 0
    for row in cursor:
        if len(rows) >= MAX_ROWS or size > MAX_TEXT:
            return {"columns": columns, "rows": rows, "more": True}
        cells = [_cell(value) for value in row]
        size += sum(len(str(c)) for c in cells)
        rows.append(cells)
    return {"columns": columns, "rows": rows, "more": False}


def _cell(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"[{len(value):,} bytes]"
    if isinstance(value, str) and len(value) > MAX_CELL:
        return f"{value[:MAX_CELL]}… [{len(value):,} characters]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
