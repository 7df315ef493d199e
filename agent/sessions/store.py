"""The store of the sessions: every message, call, result and timing of every conversation, in one SQLite file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from agent.home import home
from agent.sessions.changes import forget_changes
from agent.sessions.database import Database, forget_words, insert, understood
from agent.sessions.export import checked_import
from agent.sessions.records import (
    IMPORTED,
    Hit,
    SessionError,
    SessionInfo,
    TextPlace,
    UnwritableStore,
    clean,
    message_columns,
    session_columns,
)
from agent.sessions.search import LONGEST, like_pattern, search
from agent.sessions.session import INFO, Session, info_of, new_session

__all__ = ["Hit", "Session", "SessionError", "SessionInfo", "Store"]


class Store(AbstractContextManager["Store"]):
    """All sessions of a person. Any thread may use it; other processes may use the same file at the same time.

    Whatever a method has returned from is on the disk. Every error is a SessionError in one line.
    """

    def __init__(self, path: Path | None = None, *, kept: bool = True) -> None:
        """Open the store, or make it.

        Args:
            path: the file; by default ``sessions.db`` in SPRIG_HOME.
            kept: False, and nothing is written: it is a copy in memory that is gone with this process.

        Raises:
            SessionError: it is damaged, of a newer Sprig, or cannot be made.
        """
        self.path = home() / "sessions.db" if path is None else path
        self._database = Database(self.path, memory=not kept)

    @classmethod
    def or_unkept(cls, say: Callable[[str], object]) -> Store:
        """The store in SPRIG_HOME; where that cannot be written, one that is not kept, and ``say`` is told why in one line."""
        path = home() / "sessions.db"
        there = path.exists()
        try:
            store = cls(path)
            try:
                store._database.try_to_write()
            except BaseException:
                store.close()
                raise
            return store
        except UnwritableStore as e:
            if not there:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)  # what there was no room to begin
            say(f"what is said here will not be kept: {e}")
            return cls(path, kept=False)

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back. Sessions of this store can no longer be used."""
        self._database.close()

    @property
    def read_only(self) -> bool:
        """Whether the file, or its disk, can only be read."""
        return self._database.read_only

    def create(
        self,
        *,
        model: str = "",
        title: str | None = None,
        system: str = "",
        tools: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> Session:
        """Begin a session. Without a title it gets one from the first user message."""
        columns = session_columns(title=title or "", model=model, system=system, tools=tools, settings=settings or {})
        with self._database.writing() as connection:
            number = new_session(connection, columns)
        return Session(self._database, number, None)

    def open(self, id: str) -> Session:
        """The session with this id, or the only one whose id begins so. SessionError if no id begins so, or several do."""
        start = clean(id).strip().lower()
        with self._database.reading() as connection:
            query = "SELECT number, id, leaf FROM sessions WHERE substr(id, 1, ?) = ? ORDER BY number DESC LIMIT 4"
            rows = connection.execute(query, (len(start), start)).fetchall() if start else []
        rows = [row for row in rows if row[1] == start] or rows
        if not rows:
            raise SessionError(f"there is no session {clean(id)[:40]!r}: the list of sessions shows their ids")
        if len(rows) > 1:
            some = ", ".join([row[1] for row in rows[:3]] + ["…"] * (len(rows) > 3))
            raise SessionError(f"several sessions begin with {start!r} ({some}): write more of the id")
        return Session(self._database, rows[0][0], rows[0][2])

    def latest(self) -> Session | None:
        """The session that was used last."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT number, leaf FROM sessions ORDER BY touched DESC LIMIT 1").fetchone()
        return None if row is None else Session(self._database, row[0], row[1])

    def sessions(self, limit: int = 50, query: str | None = None) -> list[SessionInfo]:
        """The sessions, last used first; with ``query`` those whose title or model has it, or whose id begins with it."""
        text = clean((query or "")[:LONGEST]).strip()
        values = {"limit": max(0, limit), "like": like_pattern(text), "text": text.lower()}
        where = "WHERE s.title LIKE :like ESCAPE '\\' OR s.model LIKE :like ESCAPE '\\' OR substr(s.id, 1, length(:text)) = :text"
        return self._database.rows(f"{INFO} {where if text else ''} ORDER BY s.touched DESC LIMIT :limit", values, info_of)

    def search(self, text: str, limit: int = 20) -> list[Hit]:
        """Where a text occurs in messages, thoughts and calls. Anything may be searched for; nothing in it is an operator."""
        with self._database.reading() as connection, understood(self.path):
            return search(connection, text, limit)

    def texts(self) -> list[TextPlace]:
        """Where users and models said something, the oldest first."""
        query = (
            "SELECT s.id, m.id, m.role, m.created, length(m.text) FROM messages m JOIN sessions s ON s.number = m.session "
            "WHERE m.role IN ('user', 'assistant') AND m.state = 'complete' AND m.text != '' ORDER BY m.id"
        )
        return self._database.rows(query, (), lambda row: TextPlace(*row))

    def text(self, message: int) -> str | None:
        """The text of a message; None when it is not there any more."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT text FROM messages WHERE id = ?", (message,)).fetchone()
        return None if row is None else str(row[0])

    def rename(self, id: str, title: str) -> None:
        number = self.open(id).number
        with self._database.writing() as connection:
            connection.execute("UPDATE sessions SET title = ? WHERE number = ?", (" ".join(clean(title).split()), number))

    def delete(self, id: str) -> None:
        """Remove a session and its messages; what they held is overwritten in the file. Its forks stay."""
        session = self.open(id)
        with self._database.writing() as connection:
            connection.execute("DELETE FROM sessions WHERE number = ?", (session.number,))
            forget_words(connection)
        forget_changes(session.id)

    def import_json(self, data: object) -> Session:
        """Take in a session that ``Session.export_json`` gave away. It gets an id of its own.

        An import comes from anywhere, so what could act is left out: settings, tools and the paths of pictures. SessionError when
        it is not such an export, or is larger than any conversation.
        """
        title, model, system, messages, leaf = checked_import(data)
        ids: dict[int | None, int | None] = {None: None}
        with self._database.writing() as connection:
            number = new_session(
                connection, session_columns(title=title, model=model, system=system, tools=(), settings={IMPORTED: True})
            )
            for one in messages:
                row = message_columns(
                    one.message, state=one.state, ok=one.ok, data=one.data, seconds=one.seconds, fingerprint="", usage=one.usage
                )
                row |= {"session": number, "parent": ids[one.parent], "created": one.created}
                ids[one.id] = insert(connection, "messages", row)
            connection.execute("UPDATE sessions SET leaf = ? WHERE number = ?", (ids[leaf], number))
        return Session(self._database, number, ids[leaf])
