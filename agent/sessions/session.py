"""One session: a tree of messages with a current leaf.

To edit a message, or to have an answer again, is to branch at the message before it and to append anew; nothing is overwritten.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Unpack

from agent.messages import Message
from agent.sessions.database import Database, insert
from agent.sessions.export import json_export
from agent.sessions.markdown import markdown_export
from agent.sessions.records import (
    COLUMNS,
    MessageDetails,
    SessionError,
    SessionInfo,
    StoredMessage,
    as_written,
    clean,
    json_of,
    message_columns,
    session_columns,
    stored,
    title_of,
)

_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # none that a person confuses with another
_ID_LENGTH = 10
INFO = """
SELECT s.id, s.title, s.created, s.updated, s.model, s.system, s.tools, s.settings,
       (SELECT count(*) FROM messages m WHERE m.session = s.number),
       (SELECT p.id FROM sessions p WHERE p.number = s.parent_session), s.parent_message
FROM sessions s
"""
_PATH = f"""
WITH RECURSIVE path (at) AS (
    SELECT :leaf UNION SELECT m.parent FROM messages m JOIN path ON m.id = path.at WHERE m.parent IS NOT NULL
)
SELECT {COLUMNS} FROM messages WHERE id IN (SELECT at FROM path) AND session = :session ORDER BY id
"""


class Session(AbstractContextManager["Session"]):
    """One conversation. It follows its own leaf: what another process appends to the same session becomes a branch beside it,
    so that no turn is torn apart; whoever opens the session next goes on from what was appended last."""

    def __init__(self, database: Database, number: int, leaf: int | None) -> None:
        self._database = database
        self.kept = database.kept  # False: it is gone with this process
        self.number = number
        self.leaf = leaf
        with database.reading() as connection:
            self.id: str = self._id(connection)

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing waits to be written; a session that never got a message is removed."""
        if self._database.read_only or self.leaf is not None:
            return
        with self._database.writing() as connection:
            unused = "title = '' AND NOT EXISTS (SELECT 1 FROM messages WHERE session = number)"
            connection.execute(f"DELETE FROM sessions WHERE number = ? AND {unused}", (self.number,))

    @property
    def info(self) -> SessionInfo:
        found = self._database.rows(f"{INFO} WHERE s.number = ?", (self.number,), info_of)
        if not found:
            raise self._gone()
        return found[0]

    def configure(
        self,
        *,
        model: str | None = None,
        system: str | None = None,
        tools: Sequence[str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Change what goes for the whole session; what is None stays."""
        changes = session_columns(model=model, system=system, tools=tools, settings=settings)
        if changes:
            with self._database.writing() as connection:
                self._set(connection, changes)

    def append(self, message: Message, **details: Unpack[MessageDetails]) -> int:
        """Add a message after the current leaf and make it the leaf. It is complete unless its ``state`` says otherwise.

        Returns:
            The id of the message: once it is returned, the message is on the disk.
        """
        row = message_columns(message, **{"state": "complete", "fingerprint": "", **details})
        row |= {"session": self.number, "parent": self.leaf, "created": time.time()}
        with self._database.writing() as connection:
            self._id(connection)
            number = insert(connection, "messages", row)
            title = title_of(message.text) if message.role == "user" else ""
            query = "UPDATE sessions SET title = ? WHERE number = ? AND title = ''"
            connection.execute(query, (title, self.number))
            self._set(connection, {"leaf": number})
        self.leaf = number
        return number

    def update(self, id: int, message: Message | None = None, **details: Unpack[MessageDetails]) -> None:
        """Write more of a message that was appended as ``partial``, or complete it; what is None stays.

        SessionError when there is no such message in this session, or when it is complete: what was said stays said.
        """
        changes = message_columns(message, **details)
        if not changes:
            return
        assignments = ", ".join(f"{column} = ?" for column in changes)
        query = f"UPDATE messages SET {assignments} WHERE id = ? AND session = ? AND state = 'partial'"
        with self._database.writing() as connection:
            if connection.execute(query, (*changes.values(), id, self.number)).rowcount != 1:
                raise SessionError(f"message {id} of session {self.id} is not being written: append a new one")
            self._set(connection, {})

    def messages(self) -> list[StoredMessage]:
        """The conversation from its first message to the current leaf."""
        return self._select(_PATH, {"leaf": self.leaf, "session": self.number})

    def all_messages(self) -> list[StoredMessage]:
        """The messages of all branches, by id."""
        return self._select(f"SELECT {COLUMNS} FROM messages WHERE session = ? ORDER BY id", (self.number,))

    def branches(self, message_id: int) -> list[StoredMessage]:
        """The message and all that stand in its place: the versions of an edited question, the answers to one question."""
        with self._database.reading() as connection:
            parent = self._parent(connection, message_id)
        query = f"SELECT {COLUMNS} FROM messages WHERE session = ? AND parent IS ? ORDER BY id"
        return self._select(query, (self.number, parent))

    def branch(self, at: int | None) -> None:
        """Go back: the next message will follow message ``at``, or begin the conversation anew when it is None."""
        with self._database.writing() as connection:
            if at is not None:
                self._parent(connection, at)
            self._set(connection, {"leaf": at})
        self.leaf = at

    def switch(self, message_id: int) -> None:
        """Go to the branch of a message, to the newest end of it."""
        query = (
            "WITH RECURSIVE below (id) AS (SELECT ? UNION SELECT m.id FROM messages m JOIN below ON m.parent = below.id)"
            " SELECT max(id) FROM below"
        )
        with self._database.writing() as connection:
            self._parent(connection, message_id)
            leaf: int = connection.execute(query, (message_id,)).fetchone()[0]
            self._set(connection, {"leaf": leaf})
        self.leaf = leaf

    def fork(self, at: int, *, title: str | None = None) -> Session:
        """A new session that begins with a copy of the conversation up to message ``at``, and remembers where it came from."""
        with self._database.writing() as connection:
            self._parent(connection, at)
            names = ("title", "model", "system", "tools", "settings")
            query = f"SELECT {', '.join(names)} FROM sessions WHERE number = ?"
            copied = dict(zip(names, connection.execute(query, (self.number,)).fetchone(), strict=True))
            number = new_session(connection, copied | ({"title": clean(title)} if title else {}))
            leaf: int | None = None
            for row in connection.execute(_PATH, {"leaf": at, "session": self.number}).fetchall():
                columns = dict(zip(COLUMNS.split(", ")[1:], row[1:], strict=True))
                leaf = insert(connection, "messages", columns | {"session": number, "parent": leaf})
            query = "UPDATE sessions SET leaf = ?, parent_session = ?, parent_message = ? WHERE number = ?"
            connection.execute(query, (leaf, self.number, at, number))
        return Session(self._database, number, leaf)

    def export_markdown(self) -> str:
        """The conversation up to the leaf, for people: the Markdown that was said, which cannot pass for a role's heading."""
        return markdown_export(self.info, self.messages())

    def export_json(self) -> dict[str, Any]:
        """All branches as JSON values, for ``Store.import_json``. Token ids stay in the store: they belong to one model file."""
        return json_export(self.info, self.all_messages(), self.leaf)

    def _select(self, query: str, values: Any) -> list[StoredMessage]:
        return self._database.rows(query, values, stored)

    def _id(self, connection: sqlite3.Connection) -> str:
        row = connection.execute("SELECT id FROM sessions WHERE number = ?", (self.number,)).fetchone()
        if row is None:
            raise self._gone()
        return str(row[0])

    def _gone(self) -> SessionError:
        return SessionError(f"session {getattr(self, 'id', self.number)} was deleted meanwhile: begin a new one")

    def _parent(self, connection: sqlite3.Connection, message: int) -> int | None:
        row = connection.execute("SELECT parent FROM messages WHERE id = ? AND session = ?", (message, self.number)).fetchone()
        if row is None:
            raise SessionError(f"session {self.id} has no message {message}: its messages carry their ids")
        parent: int | None = row[0]
        return parent

    def _set(self, connection: sqlite3.Connection, changes: Mapping[str, Any]) -> None:
        """Change columns of the session, and note that it was used now."""
        columns = {**changes, "updated": time.time()}
        assignments = ", ".join(f"{column} = ?" for column in columns)
        query = f"UPDATE sessions SET {assignments}, touched = (SELECT max(touched) + 1 FROM sessions) WHERE number = ?"
        if connection.execute(query, (*columns.values(), self.number)).rowcount != 1:
            raise self._gone()


def new_session(connection: sqlite3.Connection, columns: Mapping[str, Any]) -> int:
    """Add a row for a session that was used now, and return its number."""
    now = time.time()
    touched: int = connection.execute("SELECT coalesce(max(touched), 0) + 1 FROM sessions").fetchone()[0]
    id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
    return insert(connection, "sessions", {"id": id, "created": now, "updated": now, "touched": touched, **columns})


_INFO_KINDS = ("text", "text", "time", "time", "text", "text", "text", "text", "count", "text?", "count?")


def info_of(row: Sequence[Any]) -> SessionInfo:
    """A row of ``INFO`` as data. TypeError or ValueError when it is none."""
    as_written(row, _INFO_KINDS)
    id, title, created, updated, model, system, tools, settings, count, parent, parent_message = row
    names, values = tuple(json_of(tools, list)), json_of(settings, dict)
    return SessionInfo(id, title, created, updated, model, system, names, values, count, parent, parent_message)
