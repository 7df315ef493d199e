"""A session as JSON for another store. What comes back in is untrusted and checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from agent.messages import Message, ToolCall
from agent.sessions.records import ROLES, STATES, SessionError, SessionInfo, StoredMessage, clean

FORMAT = 1
# More than any conversation with a small model; an import that is larger is not one.
_MESSAGES = 100_000
_CHARACTERS = 64_000_000
_CALLS = 256
_DEPTH = 64
_ID = 2**53


def json_export(info: SessionInfo, messages: Sequence[StoredMessage], leaf: int | None) -> dict[str, Any]:
    """The session and all its branches as JSON values."""
    session = {
        "id": info.id, "title": info.title, "created": info.created, "updated": info.updated, "model": info.model,
        "system": info.system, "tools": list(info.tools), "settings": dict(info.settings), "leaf": leaf,
    }  # fmt: skip
    return {"sprig_session": FORMAT, "session": session, "messages": [_as_json(one) for one in messages]}


def _as_json(one: StoredMessage) -> dict[str, Any]:
    m = one.message
    full: dict[str, Any] = {
        "id": one.id, "parent": one.parent, "role": m.role, "text": m.text, "thinking": m.thinking,
        "calls": [{"id": call.id, "name": call.name, "arguments": dict(call.arguments)} for call in m.calls],
        "call_id": m.call_id, "name": m.name, "images": list(m.images), "state": one.state, "created": one.created,
        "ok": one.ok, "data": one.data, "seconds": one.seconds, "usage": None if one.usage is None else dict(one.usage),
    }  # fmt: skip
    kept = {"id", "parent", "role", "text", "state", "created"}
    return {key: value for key, value in full.items() if key in kept or value not in ("", None, [])}


class _ImportChecker:
    """Takes values out of untrusted JSON: each has the type that it must have, and all together are not too large."""

    def __init__(self) -> None:
        self.left = _CHARACTERS

    def fail(self, what: str) -> SessionError:
        return SessionError(f"this is no session that Sprig exported: {what}; nothing was imported")

    def spend(self, text: str, where: str) -> str:
        self.left -= len(text)
        if self.left < 0:
            raise self.fail(f"{where} and what stands before it is longer than {_CHARACTERS:,} characters")
        return clean(text)

    def mapping(self, value: object, where: str) -> dict[str, Any]:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise self.fail(f"{where} is not an object")
        return value

    def listing(self, value: object, where: str, limit: int) -> list[Any]:
        if not isinstance(value, list) or len(value) > limit:
            raise self.fail(f"{where} is not a list of at most {limit:,}")
        return value

    def text(self, owner: dict[str, Any], key: str, where: str) -> str:
        value = owner.get(key, "")
        if not isinstance(value, str):
            raise self.fail(f"{key} of {where} is not a text")
        return self.spend(value, where)

    def number(self, owner: dict[str, Any], key: str, where: str, default: float | None) -> float | None:
        value = owner.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e15:
            raise self.fail(f"{key} of {where} is not a number")
        return float(value)

    def id(self, value: object, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _ID:
            raise self.fail(f"{where} has no id")
        return value

    def json(self, value: object, where: str, depth: int = 0) -> Any:
        """A copy of any JSON value, of bounded size and depth."""
        if depth > _DEPTH:
            raise self.fail(f"{where} is nested too deep")
        self.left -= 1
        if isinstance(value, str):
            return self.spend(value, where)
        if value is None or isinstance(value, bool):
            return value
        if (isinstance(value, int) and value.bit_length() <= 1024) or (isinstance(value, float) and math.isfinite(value)):
            return value
        if isinstance(value, list):
            return [self.json(item, where, depth + 1) for item in value]
        if isinstance(value, dict):
            pairs = self.mapping(value, where).items()
            return {self.spend(key, where): self.json(item, where, depth + 1) for key, item in pairs}
        raise self.fail(f"{where} holds something that JSON has not")


def checked_import(data: object) -> tuple[str, str, str, list[StoredMessage], int | None]:
    """Title, model, system prompt, messages in order, and leaf of an export. SessionError if ``data`` is not one."""
    reader = _ImportChecker()
    top = reader.mapping(data, "it")
    if top.get("sprig_session") != FORMAT:
        raise reader.fail(f"sprig_session is not {FORMAT}")
    session = reader.mapping(top.get("session"), "session")
    title, model, system = (reader.text(session, key, "session") for key in ("title", "model", "system"))
    messages: list[StoredMessage] = []
    known: set[int] = set()
    for place, item in enumerate(reader.listing(top.get("messages"), "messages", _MESSAGES)):
        one = _checked_message(reader, reader.mapping(item, f"message {place + 1}"), f"message {place + 1}", known)
        known.add(one.id)
        messages.append(one)
    leaf = session.get("leaf")
    if leaf is not None and reader.id(leaf, "leaf") not in known:
        raise reader.fail("its leaf is no message of it")
    return " ".join(title.split()), model, system, messages, leaf


def _checked_message(reader: _ImportChecker, item: dict[str, Any], where: str, known: set[int]) -> StoredMessage:
    number = reader.id(item.get("id"), where)
    parent = item.get("parent")
    if number in known or (parent is not None and reader.id(parent, f"the parent of {where}") not in known):
        raise reader.fail(f"{where} does not follow a message before it")
    role, state = item.get("role"), item.get("state", "complete")
    # The types are checked first: to look a list up in a set is a TypeError.
    if not isinstance(role, str) or role not in ROLES or not isinstance(state, str) or state not in STATES:
        raise reader.fail(f"{where} has an unknown role or state")
    ok = item.get("ok")
    if ok is not None and not isinstance(ok, bool):
        raise reader.fail(f"ok of {where} is neither true nor false")
    calls = [
        _checked_call(reader, reader.mapping(call, f"a call of {where}"), where)
        for call in reader.listing(item.get("calls", []), f"calls of {where}", _CALLS)
    ]
    text, thinking, call_id, name = (reader.text(item, key, where) for key in ("text", "thinking", "call_id", "name"))
    message = Message(role, text, thinking, tuple(calls), call_id, name)  # type: ignore[arg-type]
    usage = item.get("usage")
    numbers = None if usage is None else {
        reader.spend(key, where): reader.number({"usage": value}, "usage", where, 0.0) or 0.0
        for key, value in reader.mapping(usage, f"usage of {where}").items()
    }  # fmt: skip
    return StoredMessage(
        number, parent, message, state,  # type: ignore[arg-type]
        reader.number(item, "created", where, 0.0) or 0.0, ok, reader.json(item.get("data"), f"data of {where}"),
        reader.number(item, "seconds", where, None), usage=numbers,
    )  # fmt: skip


def _checked_call(reader: _ImportChecker, call: dict[str, Any], where: str) -> ToolCall:
    arguments = reader.mapping(call.get("arguments", {}), f"arguments of {where}")
    checked = reader.json(arguments, f"arguments of {where}")
    return ToolCall(reader.text(call, "name", where), checked, reader.text(call, "id", where))
