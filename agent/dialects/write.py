"""Writing calls, and whole turns, as a model of some family would have written them itself.

Only a dialect's marks and the names of known tools are trusted; names and values that came from a model are not, so no control
token can hide in them. Between the marks cuts are few: each keeps a tokenizer from joining what stands around it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.dialects.base import Dialect, Thinking
from agent.messages import Message, Segment, ToolCall, ToolSpec

_PLAIN_KEY = re.compile(r"[A-Za-z_][\w.\-]*")
_NOT_IN_TAG = re.compile(r"[<>\"'\s]")
_CDATA_CLOSE = "]]>"


def write_calls(dialect: Dialect, calls: Sequence[ToolCall], tools: Mapping[str, ToolSpec]) -> list[Segment]:
    """Calls in a dialect. Numbers that JSON does not know (NaN, infinite) become null.

    A string that holds the very mark which would end it, in a notation that has no escapes, is written with a space in that mark.

    Args:
        dialect: of the model.
        calls: at least one, unless nothing is to be written.
        tools: the known ones, by name.
    """
    if not calls:
        return []
    out = [Segment(dialect.section_open, trusted=True)]
    for number, call in enumerate(calls):
        if number:
            # Llama's own way to write several is to not do it; between two objects something must stand.
            out.append(Segment(dialect.separator or ("; " if dialect.only_at_start else ""), trusted=True))
        out.extend(_WRITERS[dialect.style](dialect, call, call.name in tools))
    out.append(Segment(dialect.section_close, trusted=True))
    return joined(out)


def write_turn(dialect: Dialect, thinking: Thinking | None, message: Message, tools: Mapping[str, ToolSpec]) -> list[Segment]:
    """An assistant's message as the model would have emitted it behind the generation prompt: thought, words, calls.

    In a dialect whose calls stand only at the start of an answer, the words beside a call are left out, as its templates do.

    Args:
        dialect: of the model.
        thinking: its marks; without them the thought is left out.
        message: of the assistant.
        tools: the known ones, by name.
    """
    out: list[Segment] = []
    if thinking and message.thinking:
        out.extend(_thought(thinking, message.thinking))
    calls = write_calls(dialect, message.calls, tools)
    text = "" if calls and dialect.only_at_start else message.text
    if dialect.text_name:
        if text:
            out.append(Segment(dialect.call_open + dialect.text_name + dialect.after_name, trusted=True))
            out.append(Segment(tame(text, dialect.call_open), trusted=False))
        out = joined([*out, *calls])
        # The first opening mark is the prompt's.
        if out and out[0].text.startswith(dialect.call_open):
            out[0] = Segment(out[0].text.removeprefix(dialect.call_open), trusted=True)
        return joined(out)
    out.append(Segment(text, trusted=False))
    if text and calls and not dialect.section_open:
        out.append(Segment(dialect.separator, trusted=True))
    return joined([*out, *calls])


def joined(segments: Sequence[Segment]) -> list[Segment]:
    """The same, without empty segments and with neighbours of one kind made one."""
    out: list[Segment] = []
    for segment in segments:
        if not segment.text:
            continue
        if out and out[-1].trusted == segment.trusted:
            out[-1] = Segment(out[-1].text + segment.text, segment.trusted)
        else:
            out.append(segment)
    return out


def tame(text: str, mark: str) -> str:
    """The same text with every ``mark`` in it visibly broken by a space."""
    return text.replace(mark, f"{mark[0]} {mark[1:]}")


def _thought(thinking: Thinking, text: str) -> list[Segment]:
    text = tame(text, thinking.close)
    if thinking.open.endswith("\n"):
        before, after, close = "", "\n", thinking.close
    elif thinking.open.startswith("<"):
        before, after, close = "\n", "\n", thinking.close + "\n\n"
    else:
        before, after, close = "", "", thinking.close
    return [
        Segment(thinking.open + before, trusted=True), Segment(text, trusted=False), Segment(after + close, trusted=True),
    ]  # fmt: skip


def _json(dialect: Dialect, call: ToolCall, known: bool) -> Iterator[Segment]:
    pair, comma = dialect.pair, dialect.comma
    arguments = _dumps(dialect, call.arguments)
    call_id = f'{comma}"{dialect.id_key}"{pair}{_dumps(dialect, call.id)}' if dialect.id_key and call.id else ""
    name = _dumps(dialect, call.name)
    yield Segment(dialect.call_open, trusted=True)
    yield Segment(f'{{"{dialect.name_key}"{pair}', trusted=True)
    yield Segment(name, trusted=known)
    # The space before the arguments goes with them: tokenizers join it with the brace.
    yield Segment(f'{comma}"{dialect.arguments_key}"{pair.rstrip()}', trusted=True)
    yield Segment(f"{pair[len(pair.rstrip()) :]}{arguments}{call_id}}}", trusted=False)
    yield Segment(dialect.call_close, trusted=True)


def _named(dialect: Dialect, call: ToolCall, known: bool) -> Iterator[Segment]:
    yield Segment(dialect.call_open, trusted=True)
    yield Segment(call.name, trusted=known)
    if dialect.id_open and call.id:
        yield Segment(dialect.id_open, trusted=True)
        yield Segment(call.id, trusted=False)
    yield Segment(dialect.after_name, trusted=True)
    yield Segment(_dumps(dialect, call.arguments), trusted=False)
    yield Segment(dialect.call_close, trusted=True)


def _tagged(dialect: Dialect, call: ToolCall, known: bool) -> Iterator[Segment]:
    yield Segment(dialect.call_open, trusted=True)
    yield Segment(call.name, trusted=known)
    yield Segment(dialect.after_name, trusted=True)
    close = dialect.parameter_close.strip()
    for key, value in call.arguments.items():
        yield Segment(dialect.parameter_open, trusted=True)
        yield Segment(_NOT_IN_TAG.sub("_", key), trusted=False)
        yield Segment(dialect.parameter_middle, trusted=True)
        text = value if isinstance(value, str) and dialect.raw_strings else _dumps(dialect, value)
        if dialect.cdata and re.search(r"[<>&\n]", text):
            yield Segment("<![CDATA[", trusted=True)
            # As XML does it: the mark that would end the section is cut in two.
            yield Segment(text.replace(_CDATA_CLOSE, "]]]]><![CDATA[>"), trusted=False)
            yield Segment(_CDATA_CLOSE, trusted=True)
        else:
            yield Segment(tame(text, close), trusted=False)
        yield Segment(dialect.parameter_close, trusted=True)
    yield Segment(dialect.call_close, trusted=True)


def _python(dialect: Dialect, call: ToolCall, known: bool) -> Iterator[Segment]:
    yield Segment(dialect.call_open, trusted=True)
    yield Segment(call.name, trusted=known)
    members = [
        (key if _PLAIN_KEY.fullmatch(key) else _dumps(dialect, key)) + dialect.pair + _literal(value)
        for key, value in call.arguments.items()
    ]
    yield Segment("(", trusted=True)
    yield Segment(dialect.comma.join(members), trusted=False)
    yield Segment(")" + dialect.call_close, trusted=True)


def _gemma(dialect: Dialect, call: ToolCall, known: bool) -> Iterator[Segment]:
    yield Segment(dialect.call_open, trusted=True)
    yield Segment(call.name, trusted=known)
    yield from _gemma_value(dialect, call.arguments)
    yield Segment(dialect.call_close, trusted=True)


def _gemma_value(dialect: Dialect, value: Any) -> Iterator[Segment]:
    if isinstance(value, str):
        yield Segment(dialect.quote, trusted=True)
        yield Segment(tame(value, dialect.quote), trusted=False)
        yield Segment(dialect.quote, trusted=True)
    elif isinstance(value, Mapping):
        yield Segment("{", trusted=True)
        for number, (key, item) in enumerate(value.items()):
            yield Segment(dialect.comma if number else "", trusted=True)
            if _PLAIN_KEY.fullmatch(key):
                yield Segment(key, trusted=False)
            else:
                yield from _gemma_value(dialect, key)
            yield Segment(dialect.pair, trusted=True)
            yield from _gemma_value(dialect, item)
        yield Segment("}", trusted=True)
    elif isinstance(value, (list, tuple)):
        yield Segment("[", trusted=True)
        for number, item in enumerate(value):
            yield Segment(dialect.comma if number else "", trusted=True)
            yield from _gemma_value(dialect, item)
        yield Segment("]", trusted=True)
    else:
        yield Segment(_dumps(dialect, value), trusted=True)  # a number, true, false or null


_WRITERS = {"json": _json, "named": _named, "tagged": _tagged, "python": _python, "gemma": _gemma}


def _dumps(dialect: Dialect, value: Any) -> str:
    # A dialect's pair is that of its own notation; where values are JSON in another one, they look like everybody's JSON.
    separators = (dialect.comma, dialect.pair) if dialect.style in ("json", "named") else (", ", ": ")
    return json.dumps(_finite(value), ensure_ascii=False, separators=separators)


def _literal(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(_finite(value))  # True, False, None or a number


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
