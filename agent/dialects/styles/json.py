"""Calls that are an object with the name of the tool and its arguments in it (Hermes, Llama 3, Mistral Nemo, Command R)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from agent.dialects.base import Dialect, fill, holes
from agent.dialects.reading import CallDraft, Reading, is_name, own_id
from agent.dialects.seen import FIRST, SECOND, ProbeCall, Seen, Span, described, numbered, object_around
from agent.dialects.segments import trusted, untrusted
from agent.dialects.stream import SPACE, Stream, Wait, ignore
from agent.dialects.values import MAX_DEPTH, BadValueError, checked, completed, finite, read_sloppy_json
from agent.grammar.automata.regex import compile_pattern
from agent.grammar.leaves import Literal, PlainText
from agent.grammar.nodes import Node
from agent.grammar.schema.compile import Compiler
from agent.grammar.syntax import Json
from agent.messages import Segment, ToolCall

ARGUMENTS = ("arguments", "parameters", "args")
KNOWN_KEYS = frozenset({"name", "function", "type", "id", *ARGUMENTS})


# Written


def head(dialect: Dialect) -> str:
    return f'{{{dialect.before_name}"{dialect.name_key}"{dialect.pair}"'


def name(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)[1:-1]


def write(dialect: Dialect, call: ToolCall, number: int) -> Iterator[Segment]:
    pair, comma = dialect.pair, dialect.comma
    call_id = f'{comma}"{dialect.id_key}"{pair}{dumps(dialect, call.id)}' if dialect.id_key and call.id else ""
    # The space before the arguments goes with them: tokenizers join it with the brace.
    yield trusted(f'"{comma}"{dialect.arguments_key}"{pair.rstrip()}')
    yield untrusted(f"{pair[len(pair.rstrip()) :]}{dumps(dialect, call.arguments)}{call_id}}}")


def dumps(dialect: Dialect, value: Any) -> str:
    """A value as JSON with the dialect's own spaces."""
    return json.dumps(finite(value), ensure_ascii=False, separators=(dialect.comma, dialect.pair))


# Constrained


def nodes(dialect: Dialect, name: str, parameters: Any) -> Iterator[Node]:
    yield Literal(f'"{dialect.comma}"{dialect.arguments_key}"{dialect.pair}')
    yield arguments_node(dialect, parameters)
    if dialect.id_key:
        yield from (Literal(f'{dialect.comma}"{dialect.id_key}"{dialect.pair}"'), id_node(), Literal('"'))
    yield Literal("}")


def arguments_node(dialect: Dialect, parameters: Any) -> Node:
    """The arguments as a JSON object."""
    return Compiler(parameters, Json(dialect.pair, dialect.comma)).node({"allOf": [parameters, {"type": "object"}]})


def id_node() -> Node:
    return PlainText(compile_pattern("[A-Za-z0-9]{9}", whole=True))


def mark_nodes(mark: str, name: str = "", *, trusted: bool = True) -> Iterator[Node]:
    """A mark whose holes are the call's number or name; ``trusted``: control tokens may stand for it."""
    for part in holes(mark):
        if part in ("{0}", "{1}"):
            yield PlainText(compile_pattern("[0-9]{1,3}", whole=True))
        else:
            yield Literal(fill(part, name=name), trusted=trusted)


# Read


def read(reading: Reading) -> Wait[bool]:
    if (yield from reading.stream.char()) != "{":
        return False
    yield from object_call(reading)
    return True


def object_call(reading: Reading) -> Wait[bool]:
    """Read one object as a call; False if what watches the reading called it off."""
    stream = reading.stream
    draft = reading.draft()
    # Some write the doubled brace of a template that was shown to them.
    doubled = yield from stream.loosely("{ {")
    stream.take(max(0, doubled - 1))
    tape = stream.record()
    closed = yield from _object(reading, draft, inner=False)
    text = stream.stop(tape)
    if closed is None:
        reading.count -= 1
        return False
    # The arguments are one or two levels down.
    draft.done(closed, lambda: _shape(read_sloppy_json(completed(text), MAX_DEPTH + 2), reading))
    return True


def json_arguments(reading: Reading, draft: CallDraft, name: str, call_id: str = "") -> Wait[None]:
    """Read the arguments of a call whose name is known."""
    tape = reading.stream.record()
    whole = (yield from reading.stream.value(draft.part, reading.json)) or (yield from reading.stopped())
    text = reading.stream.stop(tape)
    draft.done(whole, lambda: (name, _as_object(read_sloppy_json(completed(text))), call_id))


def _object(reading: Reading, draft: CallDraft, *, inner: bool) -> Wait[bool | None]:
    """Take one object; whether it is closed, None if it was called off."""
    stream, trial = reading.stream, reading.trial
    name_keys = {reading.dialect.name_key, "name", "function"}
    argument_keys = {reading.dialect.arguments_key, *ARGUMENTS}
    stream.take(1)
    while True:
        yield from stream.skip(SPACE + ",")
        next_one = yield from stream.char()
        if next_one == "}":
            stream.take(1)
            return True
        if next_one not in ('"', "'"):
            break
        key = yield from _quoted(stream, reading)
        yield from stream.skip(SPACE)
        if key is None or (yield from stream.char()) != ":":
            break
        stream.take(1)
        yield from stream.skip(SPACE)
        if trial and not trial.key(key):
            return None
        next_one = yield from stream.char()
        if key in name_keys and next_one in ('"', "'"):
            name = yield from _quoted(stream, reading)
            if name is None:
                return False
            if trial and not trial.name(name):
                return None
            if is_name(name) and key != "function":
                draft.name(name)
        elif key == "function" and next_one == "{" and not inner:
            closed = yield from _object(reading, draft, inner=True)
            if not closed:
                return closed
        elif not (yield from stream.value(draft.part if key in argument_keys else ignore, reading.json)):
            return (yield from reading.stopped())
    # Not what it should look like: find its end, and let the one who parses it say what is wrong.
    return bool((yield from stream.brackets(ignore, reading.json))) or (yield from reading.stopped())


def _quoted(stream: Stream, reading: Reading) -> Wait[str | None]:
    written: list[str] = []
    if not (yield from stream.value(written.append, reading.json)):
        return None
    text = "".join(written)
    if "\\" in text and text[0] == '"':
        try:
            return str(json.loads(text, strict=False))
        except ValueError:
            pass
    return text[1:-1]


def _as_object(value: Any) -> Any:
    """Arguments that were written as a string of JSON, read once more."""
    if isinstance(value, str):
        return read_sloppy_json(value) if value.strip() else {}
    return {} if value is None else value


def _shape(value: Any, reading: Reading) -> tuple[str, Any, str]:
    """Name, arguments and id of an object."""
    dialect = reading.dialect
    if not isinstance(value, dict):
        raise BadValueError("it is not an object")
    inner = value.get("function")
    call_id = own_id(value.get(dialect.id_key)) if dialect.id_key else ""
    if isinstance(inner, dict):
        value = inner
    key = next((key for key in (dialect.name_key, "name", "function") if isinstance(value.get(key), str) and value[key]), "")
    if not key and len(value) == 1:  # {NAME: {...}}
        name, arguments = next(iter(value.items()))
        if name in reading.tools and isinstance(arguments, dict):
            return name, arguments, call_id
    if not key:
        raise BadValueError("it names no tool")
    name = value[key]
    for arguments_key in (dialect.arguments_key, *ARGUMENTS):
        if arguments_key in value:
            return name, checked(_as_object(value[arguments_key])), call_id
    beside = {k: v for k, v in value.items() if k != key and (k not in KNOWN_KEYS or k in reading.properties(name))}
    if not beside or set(beside) <= set(reading.properties(name)):
        return name, beside, call_id
    raise BadValueError(f"it has no {dialect.arguments_key!r}")


# Probed


def probe(seen: Seen) -> Dialect | None:
    found = _call_object(seen.one, FIRST)
    if found is None:
        return None
    span, keys = found
    between = None
    if seen.two is not None:
        first, second = _call_object(seen.two, FIRST), _call_object(seen.two, SECOND)
        if first and second and first[0].end <= second[0].start:
            between = seen.two[first[0].end : second[0].start], seen.two[second[0].end :]
    body = seen.one[span.start : span.end]
    pair, comma = ": " if '": ' in body else ":", ", " if ", " in body else ","
    lead = body[1 : max(1, body.find(f'"{keys["name"]}"'))].strip()
    return described(
        "json", seen.one[: span.start], seen.one[span.end :], between,
        name_key=keys["name"], arguments_key=keys["arguments"], id_key=keys.get("id", ""), pair=pair, comma=comma,
        before_name=numbered(lead, FIRST) + " " if lead.endswith(",") and ", " in body else numbered(lead, FIRST),
    )  # fmt: skip


def _call_object(text: str, call: ProbeCall) -> tuple[Span, dict[str, str]] | None:
    """The object of a call, and under which keys it has the call's name, arguments and perhaps id."""
    value = text.find(call.value)
    wanted = {"name": call.name, "arguments": call.arguments, "id": call.id}
    span = object_around(text, value)
    for _ in range(3):
        if span is None or span.end < value:
            return None
        keys = {what: key for key, found in span.value.items() for what, looked_for in wanted.items() if found == looked_for}
        if "name" in keys and "arguments" in keys and all(isinstance(v, Mapping | str) for v in span.value.values()):
            return span, keys
        span = object_around(text, span.start - 1)
    return None
