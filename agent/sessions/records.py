"""What a store gives back, and how it lies in the rows of the database: plain data, no SQL."""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent.errors import SprigError
from agent.messages import Message, Role, ToolCall

State = Literal["complete", "partial"]
ROLES: frozenset[str] = frozenset({"system", "user", "assistant", "tool"})
STATES: frozenset[str] = frozenset({"complete", "partial"})
_INT32 = range(-(2**31), 2**31)


class SessionError(SprigError):
    """A session could not be found, read or written."""


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


def calls_to_json(calls: Sequence[ToolCall]) -> str:
    return to_json([[call.id, call.name, dict(call.arguments)] for call in calls], "a tool call's arguments")


def calls_from_json(text: str) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(name, arguments, id) for id, name, arguments in json.loads(text))


def tokens_to_blob(tokens: Sequence[int] | None) -> bytes | None:
    """Token ids as little-endian int32."""
    if tokens is None:
        return None
    if any(token not in _INT32 for token in tokens):
        raise SessionError("a token id does not fit in 32 bits: tokens must be ids of a vocabulary")
    packed = array("i", tokens)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def tokens_from_blob(blob: bytes | None) -> tuple[int, ...] | None:
    if blob is None:
        return None
    packed = array("i")
    packed.frombytes(blob[: len(blob) // 4 * 4])
    if sys.byteorder == "big":
        packed.byteswap()
    return tuple(packed)


def title_of(text: str, limit: int = 60) -> str:
    """The first words of a text, on one line."""
    words = " ".join(clean(text[: limit * 4]).split())
    if len(words) <= limit:
        return words
    whole = words[: limit + 1].rpartition(" ")[0]
    return f"{whole or words[:limit]}…"


# The columns of a message row in the order that `stored` reads them.
COLUMNS = (
    "id, parent, role, text, thinking, calls, call_id, name, images, state, created, ok, data, seconds, tokens, fingerprint,"
    " usage"
)


def stored(row: Sequence[Any]) -> StoredMessage:
    """A row of ``COLUMNS`` as data."""
    number, parent, role, text, thinking, calls, call_id, name, images, state, created, *rest = row
    ok, data, seconds, tokens, fingerprint, usage = rest
    message = Message(role, text, thinking, calls_from_json(calls), call_id, name, tuple(json.loads(images)))
    return StoredMessage(
        number, parent, message, state, created,
        ok=None if ok is None else bool(ok), data=None if data is None else json.loads(data), seconds=seconds,
        tokens=tokens_from_blob(tokens), fingerprint=fingerprint, usage=None if usage is None else json.loads(usage),
    )  # fmt: skip
