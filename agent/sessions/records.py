"""What a store gives back, and how it lies in the rows of the database: plain data, no SQL."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict

from agent.errors import SprigError
from agent.messages import Message, Role, ToolCall

State = Literal["complete", "partial"]
ROLES: frozenset[str] = frozenset({"system", "user", "assistant", "tool"})
IMPORTED = "imported"  # the setting of a session that came from a file: anybody may have written all of it
STATES: frozenset[str] = frozenset({"complete", "partial"})


class SessionError(SprigError):
    """A session could not be found, read or written."""


class UnwritableStore(SessionError):
    """The file of the sessions cannot be written: its disk is full, read-only or broken."""


class DamagedStore(SessionError):
    """The file of the sessions is damaged, or is not a database."""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session without its messages.

    Attributes:
        id: ten letters and digits, drawn at random.
        title: the first words of the first user message, until somebody renames it.
        created, updated: seconds since 1970, as the clock stood then; nothing is ordered by them.
        model: path or name of the model.
        system: the system prompt.
        tools: names of the tools that the model had.
        settings: JSON values by name.
        messages: how many there are, over all branches.
        parent: the session that this one was forked from, if any and if it is still there.
        parent_message: the message of ``parent`` after which this one went its own way.
    """

    id: str
    title: str
    created: float
    updated: float
    model: str
    system: str
    tools: tuple[str, ...]
    settings: Mapping[str, Any]
    messages: int
    parent: str | None = None
    parent_message: int | None = None


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as the store keeps it.

    Attributes:
        id: grows with every message of the store; the order of things.
        parent: the message that it follows; None for the first of a conversation.
        message: what was said.
        state: ``partial`` while an answer is being generated, and for good when it was interrupted.
        created: seconds since 1970, as the clock stood then.
        ok: of a tool message, whether the tool did what it was asked.
        data: of a tool message, its result as a JSON value.
        seconds: of a tool message, how long the tool took.
        tokens: the ids that were read or generated for it, where they were kept.
        fingerprint: of the model that ``tokens`` belong to.
        usage: counts and times by name, like ``prompt_tokens`` and ``decode_seconds``.
    """

    id: int
    parent: int | None
    message: Message
    state: State
    created: float
    ok: bool | None = None
    data: Any = None
    seconds: float | None = None
    tokens: tuple[int, ...] | None = None
    fingerprint: str = ""
    usage: Mapping[str, int | float] | None = None


class MessageDetails(TypedDict, total=False):
    """What is kept of a message beside what was said, as in ``StoredMessage``; None where it is not known, or stays as it was."""

    state: State | None
    ok: bool | None
    data: Any
    seconds: float | None
    tokens: Sequence[int] | None
    fingerprint: str | None
    usage: Mapping[str, int | float] | None


@dataclass(frozen=True, slots=True)
class Hit:
    """A place where a text was found.

    Attributes:
        session: id of the session.
        title: of the session.
        message: id of the message.
        role: who said it.
        snippet: the words around it, on one line; untrusted text.
        marks: the stretches of ``snippet`` that matched, as (start, end).
        created: of the message.
    """

    session: str
    title: str
    message: int
    role: Role
    snippet: str
    marks: tuple[tuple[int, int], ...]
    created: float


@dataclass(frozen=True, slots=True)
class TextPlace:
    """A message with a text: the ids of its session and of itself, who said it, when, and how many characters it has."""

    session: str
    message: int
    role: Role
    created: float
    size: int


def clean(text: str) -> str:
    """Text that can be written as UTF-8: surrogate pairs become what they mean, lone surrogates U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def to_json(value: Any, what: str) -> str:
    """``value`` as JSON text. SessionError if it cannot be JSON; ``what`` says in words where it came from."""
    try:
        return clean(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    except (TypeError, ValueError, RecursionError) as e:
        raise SessionError(f"{what} cannot be kept as JSON ({e}): hand over texts, numbers, lists and dicts of them") from None


def _tokens_to_blob(tokens: Sequence[int]) -> bytes:
    """Token ids as little-endian int32."""
    try:
        return struct.pack(f"<{len(tokens)}i", *tokens)
    except struct.error:
        raise SessionError("a token id does not fit in 32 bits: tokens must be ids of a vocabulary") from None


_SESSION: Mapping[str, Callable[[Any], Any]] = {
    "title": clean, "model": clean, "system": clean, "tools": lambda names: to_json(list(names), "the names of the tools"),
    "settings": lambda settings: to_json(dict(settings), "the settings"),
}  # fmt: skip
_MESSAGE: Mapping[str, Callable[[Any], Any]] = {
    "role": str, "text": clean, "thinking": clean, "call_id": clean, "name": clean,
    "calls": lambda calls: to_json([[c.id, c.name, dict(c.arguments)] for c in calls], "a tool call's arguments"),
    "images": lambda paths: to_json(list(paths), "the paths of pictures"),
    "state": str, "ok": int, "data": lambda data: to_json(data, "a tool's result"), "seconds": float,
    "tokens": _tokens_to_blob, "fingerprint": clean, "usage": lambda usage: to_json(dict(usage), "a usage"),
}  # fmt: skip


def session_columns(**values: Any) -> dict[str, Any]:
    """The columns of a session's row for these values of a ``SessionInfo``; what is None is left out."""
    return {name: _SESSION[name](value) for name, value in values.items() if value is not None}


def message_columns(message: Message | None, **values: Any) -> dict[str, Any]:
    """The columns of a message's row for a message and values of a ``StoredMessage``; what is None is left out."""
    if message is not None:
        values |= {field.name: getattr(message, field.name) for field in fields(message) if field.name in _MESSAGE}
    role, state = values.get("role", "user"), values.get("state") or "partial"
    if role not in ROLES or state not in STATES:
        raise SessionError(f"a message cannot be kept: role {role!r}, state {state!r} is unknown")
    return {name: _MESSAGE[name](value) for name, value in values.items() if value is not None}


def title_of(text: str, limit: int = 60) -> str:
    """The first words of a text, on one line."""
    words = " ".join(clean(text[: limit * 4]).split())
    if len(words) <= limit:
        return words
    whole = words[: limit + 1].rpartition(" ")[0]
    return f"{whole or words[:limit]}…"


_KINDS: Mapping[str, tuple[type, ...]] = {"text": (str,), "count": (int,), "number": (int, float), "bytes": (bytes,)}
_MOST_SECONDS = 6e10  # from 1970 to the year 3871, or back to 68: what is further no calendar shows


def as_written(row: Sequence[Any], kinds: Sequence[str]) -> None:
    """Raises TypeError or ValueError if a value of the row is not of its kind.

    ``kinds`` are names of ``_KINDS``, with a question mark where the value may be None, or "time".
    """
    for value, kind in zip(row, kinds, strict=True):
        if kind == "time":
            if not isinstance(value, int | float) or not abs(value) < _MOST_SECONDS:
                raise ValueError(f"{value!r:.40} is no time")
        elif not (value is None and kind[-1] == "?") and not isinstance(value, _KINDS[kind.rstrip("?")]):
            raise TypeError(f"{type(value).__name__} in the place of a {kind.rstrip('?')}")


def json_of(text: str, kind: type) -> Any:
    """A JSON value of this kind. ValueError when the text holds none."""
    value = json.loads(text)
    if not isinstance(value, kind):
        raise ValueError(f"{text!r:.40} is no {kind.__name__}")
    return value


# The columns of a message row in the order that `stored` reads them.
COLUMNS = (
    "id, parent, role, text, thinking, calls, call_id, name, images, state, created, ok, data, seconds, tokens, fingerprint,"
    " usage"
)


_MESSAGE_KINDS = (
    "count", "count?", "text", "text", "text", "text", "text", "text", "text", "text", "time", "count?", "text?", "number?",
    "bytes?", "text", "text?",
)  # fmt: skip


def stored(row: Sequence[Any]) -> StoredMessage:
    """A row of ``COLUMNS`` as data. TypeError or ValueError when it is none."""
    as_written(row, _MESSAGE_KINDS)
    number, parent, role, text, thinking, calls, call_id, name, images, state, created, *rest = row
    ok, data, seconds, tokens, fingerprint, usage = rest
    if role not in ROLES or state not in STATES:
        raise ValueError(f"role {role!r:.20}, state {state!r:.20}")
    said = tuple(ToolCall(tool, arguments, id) for id, tool, arguments in json_of(calls, list))
    message = Message(role, text, thinking, said, call_id, name, tuple(json_of(images, list)))
    ids = None if tokens is None else struct.unpack(f"<{len(tokens) // 4}i", tokens[: len(tokens) // 4 * 4])
    return StoredMessage(
        number, parent, message, state, created,
        ok=None if ok is None else bool(ok), data=None if data is None else json.loads(data), seconds=seconds,
        tokens=ids, fingerprint=fingerprint, usage=None if usage is None else json_of(usage, dict),
    )  # fmt: skip


def day_of(seconds: float) -> str:
    """A time for people, in this machine's zone."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "at an unknown time"
