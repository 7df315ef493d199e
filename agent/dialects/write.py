"""Writing calls, and whole turns, as a model of some family would have written them itself.

Only a dialect's marks and the names of known tools are trusted; names and values that came from a model are not, so no control
token can hide in them. Between the marks cuts are few: each keeps a tokenizer from joining what stands around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.dialects.base import Dialect, Thinking, fill
from agent.dialects.segments import joined, tame, trusted, untrusted
from agent.dialects.table import STYLES
from agent.messages import Message, Segment, ToolCall, ToolSpec


def write_calls(dialect: Dialect, calls: Sequence[ToolCall], tools: Mapping[str, ToolSpec]) -> list[Segment]:
    """Calls in a dialect. Numbers that JSON does not know (NaN, infinite) become null.

    A string that holds the very mark which would end it, in a notation that has no escapes, is written with a space in that mark.
    ``tools`` are the known ones, by name.
    """
    if not calls:
        return []
    style = STYLES[dialect.style]
    out = [trusted(dialect.section_open)]
    for number, call in enumerate(calls):
        if number:
            # Llama's own way to write several is to not do it; between two objects something must stand.
            out.append(trusted(dialect.separator or ("; " if dialect.only_at_start else "")))
        out.append(trusted(dialect.call_open))
        if dialect.id_close:
            out += [untrusted(call.id), trusted(dialect.id_close)]
        out += [trusted(fill(style.head(dialect), number)), Segment(style.name(call.name), trusted=call.name in tools)]
        out += [*style.write(dialect, call, number), trusted(dialect.call_close)]
    out.append(trusted(dialect.section_close))
    return joined(out)


def write_turn(dialect: Dialect, thinking: Thinking | None, message: Message, tools: Mapping[str, ToolSpec]) -> list[Segment]:
    """An assistant's message as the model would have emitted it behind the generation prompt: thought, words, calls.

    In a dialect whose calls stand only at the start of an answer, the words beside a call are left out, as its templates do.
    Without the marks of ``thinking``, the thought is left out. ``tools`` are the known ones, by name.
    """
    out: list[Segment] = []
    if thinking and message.thinking:
        out.extend(_thought(thinking, message.thinking))
    calls = write_calls(dialect, message.calls, tools)
    text = "" if calls and dialect.only_at_start else message.text
    if dialect.text_name:
        if text:
            out.append(trusted(dialect.call_open + dialect.text_name + dialect.after_name))
            out.append(untrusted(tame(text, dialect.call_open)))
        out = joined([*out, *calls])
        # The first opening mark is the prompt's.
        if out and out[0].text.startswith(dialect.call_open):
            out[0] = trusted(out[0].text.removeprefix(dialect.call_open))
        return joined(out)
    out.append(untrusted(text))
    if text and calls and not dialect.section_open:
        out.append(trusted(dialect.separator))
    return joined([*out, *calls])


def _thought(thinking: Thinking, text: str) -> list[Segment]:
    text = tame(text, thinking.close)
    if thinking.open.endswith("\n"):
        before, after, close = "", "\n", thinking.close
    elif thinking.open.startswith("<"):
        before, after, close = "\n", "\n", thinking.close + "\n\n"
    else:
        before, after, close = "", "", thinking.close
    return [trusted(thinking.open + before), untrusted(text), trusted(after + close)]
