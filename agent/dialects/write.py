"""Writing calls, and whole turns, as a model of some family would have written them itself.

Only a dialect's marks and the names of known tools are trusted; names and values that came from a model are not, so no control
token can hide in them. Between the marks cuts are few: each keeps a tokenizer from joining what stands around it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agent.dialects.base import Dialect, Style, Thinking
from agent.messages import Message, Segment, ToolCall, ToolSpec

_PLAIN_KEY = re.compile(r"[A-Za-z_][\w.\-]*")
NOT_IN_TAG = re.compile(r"[<>\"'\s]")
CDATA_OPEN, CDATA_CLOSE = "<![CDATA[", "]]>"


def trusted(text: str) -> Segment:
    """A text of a dialect's, in which control tokens may be."""
    return Segment(text, trusted=True)


def untrusted(text: str) -> Segment:
    """A text of a model, a user or a tool."""
    return Segment(text, trusted=False)


def is_bare(key: str) -> bool:
    """Whether a key is written without quotes where that is the style."""
    return _PLAIN_KEY.fullmatch(key) is not None


def write_calls(dialect: Dialect, calls: Sequence[ToolCall], tools: Mapping[str, ToolSpec]) -> list[Segment]:
    """Calls in a dialect. Numbers that JSON does not know (NaN, infinite) become null.

    A string that holds the very mark which would end it, in a notation that has no escapes, is written with a space in that mark.
    ``tools`` are the known ones, by name.
    """
    if not calls:
        return []
    out = [trusted(dialect.section_open)]
    for number, call in enumerate(calls):
        if number:
            # Llama's own way to write several is to not do it; between two objects something must stand.
            out.append(trusted(dialect.separator or ("; " if dialect.only_at_start else "")))
        head, name = "", call.name
        if dialect.style == "json":
            head, name = f'{{"{dialect.name_key}"{dialect.pair}', _dumps(dialect, name)
        out += [trusted(dialect.call_open + head), Segment(name, trusted=call.name in tools)]
        out += [*_ARGUMENTS[dialect.style](dialect, call), trusted(dialect.call_close)]
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
    return [trusted(thinking.open + before), untrusted(text), trusted(after + close)]


def _json(dialect: Dialect, call: ToolCall) -> Iterator[Segment]:
    pair, comma = dialect.pair, dialect.comma
    call_id = f'{comma}"{dialect.id_key}"{pair}{_dumps(dialect, call.id)}' if dialect.id_key and call.id else ""
    # The space before the arguments goes with them: tokenizers join it with the brace.
    yield trusted(f'{comma}"{dialect.arguments_key}"{pair.rstrip()}')
    yield untrusted(f"{pair[len(pair.rstrip()) :]}{_dumps(dialect, call.arguments)}{call_id}}}")


def _named(dialect: Dialect, call: ToolCall) -> Iterator[Segment]:
    if dialect.id_open and call.id:
        yield trusted(dialect.id_open)
        yield untrusted(call.id)
    yield trusted(dialect.after_name)
    yield untrusted(_dumps(dialect, call.arguments))


def _tagged(dialect: Dialect, call: ToolCall) -> Iterator[Segment]:
    yield trusted(dialect.after_name)
    close = dialect.parameter_close.strip()
    for key, value in call.arguments.items():
        yield trusted(dialect.parameter_open)
        yield untrusted(NOT_IN_TAG.sub("_", key))
        yield trusted(dialect.parameter_middle)
        text = value if isinstance(value, str) and dialect.raw_strings else _dumps(dialect, value)
        if dialect.cdata and re.search(r"[<>&\n]", text):
            yield trusted(CDATA_OPEN)
            # As XML does it: the mark that would end the section is cut in two.
            yield untrusted(text.replace(CDATA_CLOSE, "]]]]><![CDATA[>"))
            yield trusted(CDATA_CLOSE)
        else:
            yield untrusted(tame(text, close))
        yield trusted(dialect.parameter_close)


def _python(dialect: Dialect, call: ToolCall) -> Iterator[Segment]:
    members = [
        (key if is_bare(key) else _dumps(dialect, key)) + dialect.pair + python_literal(value)
        for key, value in call.arguments.items()
    ]
    yield trusted("(")
    yield untrusted(dialect.comma.join(members))
    yield trusted(")")


def gemma_value(dialect: Dialect, value: Any) -> Iterator[Segment]:
    """A value in the notation of Gemma's calls."""
    if isinstance(value, str):
        yield trusted(dialect.quote)
        yield untrusted(tame(value, dialect.quote))
        yield trusted(dialect.quote)
    elif isinstance(value, Mapping):
        yield trusted("{")
        for number, (key, item) in enumerate(value.items()):
            yield trusted(dialect.comma if number else "")
            yield from [untrusted(key)] if is_bare(key) else gemma_value(dialect, key)
            yield trusted(dialect.pair)
            yield from gemma_value(dialect, item)
        yield trusted("}")
    elif isinstance(value, (list, tuple)):
        yield trusted("[")
        for number, item in enumerate(value):
            yield trusted(dialect.comma if number else "")
            yield from gemma_value(dialect, item)
        yield trusted("]")
    else:
        yield trusted(_dumps(dialect, value))  # a number, true, false or null


# What stands behind a call's name.
_ARGUMENTS: dict[Style, Callable[[Dialect, ToolCall], Iterator[Segment]]] = {
    "json": _json, "named": _named, "tagged": _tagged, "python": _python,
    "gemma": lambda dialect, call: gemma_value(dialect, call.arguments),
}  # fmt: skip


def _dumps(dialect: Dialect, value: Any) -> str:
    # A dialect's pair is that of its own notation; where values are JSON in another one, they look like everybody's JSON.
    separators = (dialect.comma, dialect.pair) if dialect.style in ("json", "named") else (", ", ": ")
    return json.dumps(_finite(value), ensure_ascii=False, separators=separators)


def python_literal(value: Any) -> str:
    """A JSON value as a literal of Python, its strings with the escapes of JSON."""
    if isinstance(value, Mapping):
        return (
            "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {python_literal(item)}" for key, item in value.items()) + "}"
        )
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(python_literal, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(_finite(value))  # True, False, None or a number


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
