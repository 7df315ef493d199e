"""Calls and their results: a template and a model want every call answered, in its place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from agent.approval.trust import sourced
from agent.messages import Message, ToolCall
from agent.sessions.records import StoredMessage
from agent.tools.define import Tool

INTERRUPTED = "interrupted: there is no result"


def call_of(result: Message, waiting: Mapping[str, ToolCall]) -> ToolCall | None:
    """The call that a tool's message answers: that of its id; without an id, the first one of its name, or just the first."""
    if result.call_id:
        return waiting.get(result.call_id)
    return next((call for call in waiting.values() if result.name in ("", call.name)), None)


def interrupted(calls: Iterable[ToolCall]) -> list[Message]:
    """What stands for the results of calls that will get none."""
    return [Message("tool", INTERRUPTED, call_id=call.id, name=call.name) for call in calls]


def answered(messages: Iterable[Message], waiting: dict[str, ToolCall], *, close: bool = False) -> list[Message]:
    """The messages, every result with its call's id and name, and something in the place of each that is missing.

    Args:
        waiting: the calls before them that have no result, by id; afterwards, the calls at the end that have none.
        close: at the end, too, every call gets a result.
    """
    out: list[Message] = []
    for message in messages:
        if message.role == "tool":
            if call := call_of(message, waiting):
                del waiting[call.id]
                message = replace(message, call_id=call.id, name=message.name or call.name)
        else:
            out += interrupted(waiting.values())
            waiting.clear()
        out.append(message)
        if message.role == "assistant":
            waiting.update({call.id: call for call in message.calls})
    if close:
        out += interrupted(waiting.values())
        waiting.clear()
    return out


def sources(messages: Iterable[Message], tools: Iterable[Tool], own: Collection[str] = ()) -> list[Message]:
    """The messages, every result of a tool with whether others may have written it.

    Args:
        tools: that there are.
        own: ids of calls whose results are words of Sprig's own: they were refused.
    """
    known = {tool.name: tool for tool in tools}
    return [
        sourced(m, known.get(m.name)) if m.role == "tool" and m.text != INTERRUPTED and m.call_id not in own else m
        for m in messages
    ]


def taken_up(
    stored: Sequence[StoredMessage], seed: Sequence[Message], tools: Sequence[Tool], *, imported: bool
) -> list[Message]:  # fmt: skip
    """The messages of a session, or else those that an agent was made with. What was imported, others wrote."""
    refused = {s.message.call_id for s in stored if s.ok is False and s.seconds is None}
    messages = sources(answered([s.message for s in stored] or seed, {}), tools, refused)
    return [replace(message, untrusted=True) for message in messages] if imported else messages


def open_calls(messages: Sequence[Message]) -> tuple[ToolCall, ...]:
    """The calls at the end of a conversation that have no result."""
    waiting: dict[str, ToolCall] = {}
    answered(messages, waiting)
    return tuple(waiting.values())
