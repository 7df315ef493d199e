"""Messages in the form that a template takes: texts shadowed, and repaired for what this template cannot take.

Texts of Sprig's own (how tools are described, how a call or a result is written) stay as they are; everything else is shadowed.
What a template writes behind an assistant's words is found by rendering a short conversation and cutting it behind a mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent.dialects.base import Dialect
from agent.dialects.reading import own_id
from agent.dialects.seen import object_around
from agent.dialects.teach import examples, result_segments, tools_text
from agent.dialects.write import write_calls
from agent.messages import Message, ToolCall, ToolSpec
from agent.templates.profile import Profile
from agent.templates.shadow import is_plain, plain_or_shadow, shadow, shadow_schema, shadow_value, tojson, woven

Entry = dict[str, Any]
MARK = "Zfq=mark"  # stands for the assistant's words; no plain name can be it, and shadowed text cannot
_UNANSWERED = "Understood."  # between a result and a user's next words, where the assistant must have spoken


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a template is given: messages, tools (None when there are none) and further variables."""

    messages: list[Entry]
    tools: list[Entry] | None
    options: dict[str, Any] = field(default_factory=dict)


def prepared(messages: Sequence[Message], tools: Sequence[ToolSpec], profile: Profile) -> Prepared:
    """A whole conversation, in the form that the template with this profile takes."""
    known = identified(messages)
    if not (profile.parallel if profile.calls else profile.dialect.parallel):
        known = _one_call_each(known)
    system = "\n\n".join(shadow(m.text) for m in known if m.role == "system" and m.text)
    given: list[Entry] | None = [] if profile.empty_tools else None
    options: dict[str, Any] = {}
    functions = [_function(tool) for tool in tools]
    if tools and profile.tools == "argument":
        given = [{"type": "function", "function": function} for function in functions]
    elif tools and profile.tools == "xml_tools":
        options["xml_tools"] = functions
    elif tools and not profile.tools:
        system = "\n\n".join(filter(None, [system, woven(tools_text(profile.dialect, tools))]))
    said = [m for m in known if m.role != "system"]
    if tools and not profile.tools and profile.dialect.name == "generic":
        said = [*examples(), *said]
    entries = converted(said, tools, profile)
    head: Entry = {"role": "system", "content": system}
    if tools and profile.tools == "system":
        head["tools"] = tojson(functions)
    if profile.system:
        if system or "tools" in head:
            entries.insert(0, head)
    elif system:
        _put_before(entries, system)
    return Prepared(settled(entries, profile), given, options)


def converted(messages: Iterable[Message], tools: Sequence[ToolSpec], profile: Profile) -> list[Entry]:
    """Messages one by one; a system message among them becomes a user's, for it comes too late to be one."""
    entries: list[Entry] = []
    for message in messages:
        if message.role == "assistant":
            if message.text or message.calls:
                entries.append(_assistant(message, tools, profile))
        elif message.role == "tool":
            _add_result(entries, message, profile)
        else:
            entries.append({"role": "user", "content": shadow(message.text)})
    return entries


def settled(entries: list[Entry], profile: Profile) -> list[Entry]:
    """The order of roles that the template demands."""
    if profile.user_first and entries:
        first = next((i for i, e in enumerate(entries) if e["role"] != "system"), len(entries))
        if first < len(entries) and entries[first]["role"] != "user":
            entries.insert(first, {"role": "user", "content": ""})
    if not profile.alternates:
        return entries
    merged: list[Entry] = []
    for entry in entries:
        last = merged[-1] if merged else {}
        if last.get("role") == "tool" and entry["role"] == "user":
            merged.append({"role": "assistant", "content": _UNANSWERED})
        if entry["role"] == last.get("role") in ("user", "assistant") and _only_text(entry) and _only_text(last):
            merged[-1] = {**last, "content": "\n\n".join(filter(None, [last["content"], entry["content"]]))}
        else:
            merged.append(entry)
    return merged


def _only_text(entry: Entry) -> bool:
    return isinstance(entry["content"], str) and "tool_calls" not in entry


def call_entry(name: str, identity: str, arguments: Mapping[str, Any], profile: Profile) -> Entry:
    """One call. ``arguments`` are shadowed already."""
    given = arguments if profile.arguments == "object" else tojson(arguments)
    return {"id": identity, "type": "function", "function": {"name": plain_or_shadow(name), "arguments": given}}


def _usable_id(identity: str, number: int) -> str:
    """An id of nine letters and digits, as some templates demand: the given one, or one made of a number."""
    return own_id(identity) or f"call{number % 100000:05d}"


def _function(tool: ToolSpec) -> Entry:
    return {
        "name": plain_or_shadow(tool.name),
        "description": shadow(tool.description),
        "parameters": shadow_schema(tool.parameters),
    }


def identified(messages: Sequence[Message]) -> list[Message]:
    """The same messages, every call with a usable id and every result with the id of its call."""
    known: list[Message] = []
    new: dict[str, str] = {}
    open_calls: list[str] = []
    number = 0
    for message in messages:
        if message.calls:
            calls: list[ToolCall] = []
            for call in message.calls:
                number += 1
                identity = _usable_id(call.id, number)
                if call.id:
                    new[call.id] = identity
                open_calls.append(identity)
                calls.append(replace(call, id=identity))
            message = replace(message, calls=tuple(calls))
        elif message.role == "tool":
            identity = new.get(message.call_id) or (open_calls[0] if open_calls else _usable_id(message.call_id, number))
            if identity in open_calls:
                open_calls.remove(identity)
            message = replace(message, call_id=identity)
        known.append(message)
    return known


def _one_call_each(messages: list[Message]) -> list[Message]:
    """Several calls in one message become several messages, each with the result that belongs to it."""
    known: list[Message] = []
    i = 0
    while i < len(messages):
        message = messages[i]
        i += 1
        if len(message.calls) < 2:
            known.append(message)
            continue
        results: list[Message] = []
        while i < len(messages) and messages[i].role == "tool":
            results.append(messages[i])
            i += 1
        for n, call in enumerate(message.calls):
            known.append(replace(message, calls=(call,)) if n == 0 else Message("assistant", calls=(call,)))
            known += [r for r in results if r.call_id == call.id]
        ids = {call.id for call in message.calls}
        known += [r for r in results if r.call_id not in ids]
    return known


def _assistant(message: Message, tools: Sequence[ToolSpec], profile: Profile) -> Entry:
    content: Any = shadow(message.text)
    entry: Entry = {"role": "assistant"}
    if message.calls:
        if profile.calls and not (profile.null_content and message.text):
            entry["tool_calls"] = [call_entry(c.name, c.id, shadow_value(c.arguments), profile) for c in message.calls]
            content = None if profile.null_content else content
        else:
            known = {tool.name: tool for tool in tools if is_plain(tool.name)}
            content += woven(write_calls(profile.dialect, message.calls, known))
    if message.thinking and profile.thinking_key == "blocks" and isinstance(content, str):
        content = [{"type": "thinking", "thinking": shadow(message.thinking)}, {"type": "text", "text": content}]
    elif message.thinking and profile.thinking_key:
        entry[profile.thinking_key] = shadow(message.thinking)
    return {**entry, "content": content}


def _add_result(entries: list[Entry], message: Message, profile: Profile) -> None:
    if profile.results:
        entries.append({
            "role": "tool", "name": plain_or_shadow(message.name or "tool"), "tool_call_id": message.call_id,
            "content": shadow(message.text),
        })  # fmt: skip
        return
    content = woven(result_segments(profile.dialect, message.name, message.call_id, message.text))
    if entries and entries[-1].get("results"):
        entries[-1]["content"] += "\n" + content
    else:
        entries.append({"role": "user", "content": content, "results": True})


def _put_before(entries: list[Entry], text: str) -> None:
    """A system's text, where the template has no place for it: before the first user's."""
    for entry in entries:
        if entry["role"] == "user":
            entry["content"] = text + "\n\n" + entry["content"] if entry["content"] else text
            return
    entries.insert(0, {"role": "user", "content": text})


def marked(
    previous: Message, new: Sequence[Message], tools: Sequence[ToolSpec], profile: Profile, *, with_calls: bool
) -> Prepared:
    """A conversation in which a user said something, the assistant said MARK (or called with it), and ``new`` followed."""
    previous, *followed = identified([previous, *new])
    words: Entry = {"role": "assistant", "content": MARK}
    if with_calls:
        calls = [call_entry(call.name, call.id, {"zfqa": MARK}, profile) for call in previous.calls]
        words = {
            "role": "assistant",
            "content": None if profile.null_content else "",
            "tool_calls": calls if profile.parallel else calls[:1],
        }
    entries = settled([{"role": "user", "content": "x"}, words, *converted(followed, tools, profile)], profile)
    return Prepared(entries, [] if profile.empty_tools else None)


def after_words(text: str, profile: Profile, *, with_calls: bool) -> str | None:
    """What stands behind the assistant's words in a rendered conversation; None when they cannot be found."""
    at = text.rfind(MARK)
    if at < 0:
        return None
    end = _end_of_call(text, at, profile.dialect) if with_calls else at + len(MARK)
    return None if end is None else text[end:]


def _end_of_call(text: str, at: int, dialect: Dialect) -> int | None:
    """Where a call ends, and the section of calls with it, that has an argument at ``at``."""
    if dialect.style in ("json", "named"):
        span = object_around(text, at, dialect.name_key if dialect.style == "json" else "")
        if span is None:
            return None
        end = span.end
    else:
        closing = dialect.call_close or dialect.section_close
        end = text.find(closing, at)
        if end < 0:
            return None
    for closing in (dialect.call_close, dialect.section_close):
        if closing and text.startswith(closing, end):
            end += len(closing)
    return end
