"""Messages as a script gives them: texts, (role, text) pairs, dictionaries of the OpenAI form, or Message; all become Message."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.dialects.reading import own_id
from agent.errors import SprigError
from agent.messages import Message, ToolCall
from agent.turn.answer import new_call_id
from agent.turn.answered import answered, call_of

Said = str | Sequence[Message | Mapping[str, Any] | tuple[str, str]]

_ROLES: Mapping[Any, Any] = {r: r for r in ("system", "user", "assistant", "tool")} | {"developer": "system"}
_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Given:
    """A checked list of messages.

    Attributes:
        system: the system prompt that it begins with; None without one.
        messages: the rest, every call with an id.
    """

    system: str | None
    messages: tuple[Message, ...]

    def following(self, open_calls: Sequence[ToolCall]) -> list[Message]:
        """The messages as they follow a conversation in which these calls have no results yet. Afterwards every call has one.

        SprigError when a result belongs to no call.
        """
        waiting = {call.id: call for call in open_calls}
        for i, message in enumerate(self.messages):
            if message.role == "tool" and call_of(message, waiting) is None:
                which = f"the id {message.call_id!r}" if message.call_id else "no id"
                raise _wrong(i + (self.system is not None), f"a tool's result with {which}, and no call waits for it")
            answered([message], waiting)
        return answered(self.messages, {call.id: call for call in open_calls}, close=True)


def read_said(said: Any) -> Given:
    """What a run is asked: a text of the user, or messages of which the last can be answered. SprigError otherwise."""
    if isinstance(said, str):
        return Given(None, (Message("user", said),))
    given = read_messages(said, "a text or a list of messages")
    if not given.messages or given.messages[-1].role not in ("user", "tool"):
        raise _wrong(len(said) - 1, "the last message of a run is one to answer, of the role user or tool")
    return given


def read_messages(messages: Any, wanted: str = "a list of messages") -> Given:
    """A list of messages in any of the forms.

    A system message stands at the beginning only. Ids of calls that are not nine letters and digits become so.

    Raises:
        SprigError: what it is does not fit; says which message.
    """
    if isinstance(messages, str | bytes | Mapping | Message) or not isinstance(messages, Sequence):
        raise SprigError(f"{wanted} is needed here, not {type(messages).__name__} {messages!r:.80}")
    if not messages:
        raise SprigError("the list of messages is empty")
    read = [_message(i, one) for i, one in enumerate(messages)]
    system = read[0].text if read[0].role == "system" else None
    rest = read if system is None else read[1:]
    for i, message in enumerate(read):
        if i and message.role == "system":
            raise _wrong(i, "a system message can only be the first one")
        if i and message.role == "assistant" == read[i - 1].role:
            raise _wrong(i, "two messages of the assistant follow each other; make one of them")
    return Given(system, tuple(rest))


def _wrong(index: int, why: str) -> SprigError:
    return SprigError(f"messages[{index}]: {why}")


def _message(index: int, given: Any) -> Message:
    if isinstance(given, Message):
        found = replace(given, role=_role(index, given.role), text=_text(index, "text", given.text))
    elif isinstance(given, Mapping):
        found = _of_dictionary(index, given)
    elif isinstance(given, tuple | list) and len(given) == 2 and all(isinstance(part, str) for part in given):
        found = Message(_role(index, given[0]), given[1])
    else:
        raise _wrong(index, f"a (role, text) pair, a dictionary or a Message is needed, not {type(given).__name__} {given!r:.80}")
    return _with_ids(found)


def _role(index: int, role: Any) -> Any:
    if not isinstance(role, str) or role not in _ROLES:
        raise _wrong(index, f"the role is {role!r:.80} and must be system, user, assistant or tool")
    return _ROLES[role]


def _of_dictionary(index: int, given: Mapping[str, Any]) -> Message:
    if "role" not in given:
        raise _wrong(index, "the role is missing")
    role = _role(index, given["role"])
    calls = given.get("tool_calls") or ()
    if calls and role != "assistant":
        raise _wrong(index, f"tool_calls are an assistant's, not of the role {role}")
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise _wrong(index, f"tool_calls is {calls!r:.80} and must be a list")
    if given.get("function_call"):
        raise _wrong(index, "function_call is an old form; write tool_calls")
    thinking = given.get("reasoning_content") or ""
    return Message(
        role,
        _content(index, given.get("content"), needed=not calls and not thinking),
        _text(index, "reasoning_content", thinking),
        tuple(_call(index, number, call) for number, call in enumerate(calls)),
        call_id=_text(index, "tool_call_id", given.get("tool_call_id") or ""),
        name=_text(index, "name", given.get("name") or "") if role == "tool" else "",
    )


def _text(index: int, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(index, f"{key} is {value!r:.80} and must be a text")
    return value


def _content(index: int, content: Any, *, needed: bool) -> str:
    if content is None and not needed:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise _wrong(index, f"content is {content!r:.80} and must be a text or a list of text parts")
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        text = part.get("text") if isinstance(part, Mapping) else part
        if kind not in ("text", "input_text", "output_text") or not isinstance(text, str):
            raise _wrong(index, f"content has a part of type {kind!r:.40} that is no text, and nothing else can be read")
        texts.append(text)
    return "".join(texts)


def _call(index: int, number: int, given: Any) -> ToolCall:
    if isinstance(given, ToolCall):
        return given
    where = f"tool_calls[{number}]"
    function = given.get("function") if isinstance(given, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise _wrong(index, f"{where} must be {{'id': ..., 'function': {{'name': ..., 'arguments': ...}}}}")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise _wrong(index, f"{where}: the arguments are not JSON") from None
    if not isinstance(arguments, Mapping):
        raise _wrong(index, f"{where}: the arguments are no JSON object")
    return ToolCall(function["name"], dict(arguments), _text(index, f"{where}: id", given.get("id") or ""))


def _with_ids(message: Message) -> Message:
    """The same with ids that every family's template takes; a call that has none gets one."""
    calls = tuple(replace(call, id=_usable_id(call.id) if call.id else new_call_id()) for call in message.calls)
    return replace(message, calls=calls, call_id=_usable_id(message.call_id) if message.call_id else "")


def _usable_id(given: str) -> str:
    """Nine letters and digits, the same for the same id."""
    number = int.from_bytes(hashlib.sha256(given.encode("utf-8", "surrogatepass")).digest()[:8])
    return own_id(given) or "".join(_LETTERS[number // len(_LETTERS) ** i % len(_LETTERS)] for i in range(9))
