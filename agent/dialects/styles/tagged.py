"""Calls whose arguments stand between tags, each in the form of its type (Qwen3-Coder, GLM, Seed-OSS, MiniMax M2)."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from agent.dialects.base import Dialect, fill, holes
from agent.dialects.reading import CUT_OFF, CallDraft, Reading, is_name
from agent.dialects.seen import FIRST, SECOND, Seen, common_end, described, numbered
from agent.dialects.segments import tame, trusted, untrusted
from agent.dialects.stream import NAME, SPACE, Marks, Sink, Wait, parts
from agent.dialects.styles.json import json_arguments, mark_nodes
from agent.dialects.styles.python import members, python_call
from agent.dialects.values import TYPES, BadValueError, finite, read_json, read_sloppy_json, type_of
from agent.grammar.automata.dfa import Dfa, negate
from agent.grammar.automata.regex import compile_pattern
from agent.grammar.leaves import Literal
from agent.grammar.nodes import Alt, Node, Seq
from agent.grammar.schema.compile import Compiler
from agent.grammar.schema.members import Writer
from agent.grammar.syntax import FreeForm, Json, restrict, without
from agent.messages import Segment, ToolCall

_NOT_IN_TAG = re.compile(r"[<>\"'\s]")
_CDATA_OPEN, _CDATA_CLOSE = "<![CDATA[", "]]>"
_ENTITY = re.compile(r"&(?:lt|gt|amp|quot|apos|#39);")
_MAX_REFERENCES = 8


def head(dialect: Dialect) -> str:
    return ""


def name(name: str) -> str:
    return name


# Written


def write(dialect: Dialect, call: ToolCall, number: int) -> Iterator[Segment]:
    yield trusted(fill(dialect.after_name, number, call.name))
    close = dialect.parameter_close.strip()
    for key, value in call.arguments.items():
        yield trusted(dialect.parameter_open)
        yield untrusted(_NOT_IN_TAG.sub("_", key))
        yield trusted(fill(dialect.parameter_middle, kind=_kind(type_of(value))))
        raw = isinstance(value, str) and dialect.raw_strings
        text = value if raw else json.dumps(finite(value), ensure_ascii=False)
        if dialect.cdata and re.search(r"[<>&\n]", text):
            yield trusted(_CDATA_OPEN)
            # As XML does it: the mark that would end the section is cut in two.
            yield untrusted(text.replace(_CDATA_CLOSE, "]]]]><![CDATA[>"))
            yield trusted(_CDATA_CLOSE)
        else:
            yield untrusted(tame(text, close))
        yield trusted(dialect.parameter_close)


def _kind(kind: str) -> str:
    """What a typed mark calls a JSON type."""
    return "number" if kind == "integer" else kind


# Constrained


_TAG_NAME = r"[^<>\"'/\x00-\x20\x7f-\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f\u3000]+"
_SCALARS = frozenset({"null", "boolean", "integer", "number"})
_NUMBER = r"-?\d[\d.eE+-]*\s*$"
# How a value of each type begins, or is, when it stands between tags.
_LOOKS = {
    "null": r"null\s*$", "boolean": r"(?:true|false)\s*$", "integer": _NUMBER, "number": _NUMBER,
    "array": r"\[", "object": r"\{",
}  # fmt: skip


def nodes(dialect: Dialect, name: str, parameters: Any) -> Iterator[Node]:
    yield from mark_nodes(dialect.after_name, name)
    compiler = Compiler(parameters, Json())
    values = RawValues(dialect, compiler)
    writer = Writer(
        key=lambda name: Literal(name) if name and not _NOT_IN_TAG.search(name) else None,
        forms=(FreeForm(compile_pattern(_TAG_NAME, whole=True)),), value=values.node,
        before=dialect.parameter_open, between="", after=dialect.parameter_close, comma="", trusted=True,
    )  # fmt: skip
    yield members(compiler, parameters, writer)


@cache
def _no_json(kinds: frozenset[str]) -> Dfa:
    """Texts that would not be read as a value of one of the types ``kinds``."""
    looks = "|".join(sorted({_LOOKS[kind] for kind in kinds}))
    return negate(compile_pattern(rf"^\s*(?:{looks})"))


def _section(node: Node) -> Node:
    return Seq(Literal(_CDATA_OPEN, trusted=True), node, Literal(_CDATA_CLOSE, trusted=True))


class RawValues:
    """The top-level arguments of a tagged call with the mark before each: a string as it is, everything else as JSON.

    In a dialect with ``cdata``, what holds ``<``, ``>`` or ``&`` stands in a CDATA section.
    """

    def __init__(self, dialect: Dialect, compiler: Compiler) -> None:
        self._compiler = compiler
        self._raw = dialect.raw_strings
        self._middle = dialect.parameter_middle
        self._typed = len(holes(self._middle)) > 1
        self._nodes: dict[str, Node] = {}
        # What reads a value looks for the tag alone, and does so in JSON too.
        plain = compile_pattern("[^<>&]*", whole=True) if dialect.cdata else without(dialect.parameter_close.strip())
        ways: list[tuple[Dfa, Callable[[Node], Node]]] = [(plain, lambda node: node)]
        if dialect.cdata:
            ways.append((without(_CDATA_CLOSE), _section))
        self._ways = [(guard, compiler.other(Json(guard=guard)), around) for guard, around in ways]

    def node(self, schema: Any) -> Node:
        """The grammar of one argument."""
        key = json.dumps(schema)
        if key not in self._nodes:
            self._nodes[key] = self._node(schema)
        return self._nodes[key]

    def _node(self, schema: Any) -> Node:
        options: dict[str, list[Node]] = {}  # by the mark before
        pieces: list[tuple[str, Any]] = []
        for kind, data in self._compiler.pieces(schema):
            if kind == "enum":  # its values by their types
                for value_kind in dict.fromkeys(map(type_of, data)):
                    pieces.append((f"enum {value_kind}", [value for value in data if type_of(value) == value_kind]))
            else:
                pieces.append((kind, data))
        kinds = {kind.removeprefix("enum ") for kind, _ in pieces} - {"string"}
        guard = _no_json(frozenset(kinds)) if kinds and not self._typed else None
        for kind, data in pieces:
            made = options.setdefault(fill(self._middle, kind=_kind(kind.removeprefix("enum "))), [])
            if self._raw and kind == "string":
                text = restrict(self._compiler.text(data), guard)
                made += [around(restrict(text, fitting)) for fitting, _, around in self._ways]
            elif self._raw and kind == "enum string":
                made.extend(self._constant(text) for text in data if guard is None or guard.accepts(text))
            else:
                made.append(self._other("enum" if kind.startswith("enum") else kind, data))
        return Alt(*(Seq(Literal(mark, trusted=True), Alt(*made)) for mark, made in options.items()))

    def _other(self, kind: str, data: Any) -> Node:
        ways = self._ways[:1] if kind in _SCALARS else self._ways
        return Alt(*(around(compiler.piece(kind, data)) for _, compiler, around in ways))

    def _constant(self, text: str) -> Node:
        return next((around(Literal(text)) for fitting, _, around in self._ways if fitting.accepts(text)), Alt())


# Read


def read(reading: Reading) -> Wait[bool]:
    stream, dialect = reading.stream, reading.dialect
    yield from stream.skip("\"'/ ")
    if not is_name((yield from stream.char())):
        return False
    found = yield from stream.skip(NAME)
    draft = reading.draft()
    yield from stream.skip("\"'/ ")
    next_one = yield from stream.char()
    if next_one == "(" and found in reading.tools:
        yield from python_call(reading, draft, found)
        return True
    if not (yield from _past_name(reading)):
        yield from reading.give_up(draft, "it names no tool" if (yield from stream.char()) else CUT_OFF)
        return True
    yield from stream.skip(SPACE)
    draft.name(found)
    if (yield from stream.char()) == "{" and found in reading.tools and not dialect.parameter_open.startswith("{"):
        yield from json_arguments(reading, draft, found)
        return True
    arguments: dict[str, Any] = {}
    why, closed = yield from _parameters(reading, draft, found, arguments)
    if not why:
        draft.done(True, lambda: (found, arguments, ""))
    elif closed:
        draft.broken(why)
    else:
        yield from reading.give_up(draft, why)
    return True


def _past_name(reading: Reading) -> Wait[bool]:
    """Take the mark behind the name, or what a model makes of it."""
    stream, after = reading.stream, reading.dialect.after_name
    for part in holes(after.lstrip("\"'")):
        if part.startswith("{") and part.endswith("}"):
            yield from stream.skip(NAME)
        elif not (yield from stream.expect(part)):
            break
    else:
        return True
    if ">" in after[:3]:  # ``<function=f>``, ``<function name="f" >``
        return (yield from stream.expect(">"))
    # White space or nothing is behind a name between two tags.
    following = yield from stream.char()
    return following != "" and following not in NAME


def _parameters(reading: Reading, draft: CallDraft, name: str, found: dict[str, Any]) -> Wait[tuple[str, bool]]:
    """Fill in the arguments; returns what is wrong with them (empty: nothing) and whether the call's end comes next."""
    stream, dialect = reading.stream, reading.dialect
    twice = ""
    while True:
        draft.part((yield from stream.skip(SPACE)))
        opened = yield from stream.loosely(dialect.parameter_open)
        if opened < 0:
            ended = (yield from stream.loosely(dialect.call_close)) >= 0 or (yield from reading.stopped())
            if ended and dialect.call_close:
                return (f"{twice[:40]!r} comes twice" if twice else ""), True
            return (f"no {dialect.parameter_open!r} follows" if (yield from stream.char()) else CUT_OFF), False
        draft.part(stream.take(opened))
        key, kind = yield from _key(reading, draft)
        text, over = yield from _value(reading, draft)
        if text is None:
            return CUT_OFF, False
        if key in found:
            twice = key
        if not draft.too_long:
            found[key] = _typed(text, key, name, kind, reading)
        if over:
            return "", True


def _key(reading: Reading, draft: CallDraft) -> Wait[tuple[str, str]]:
    """Take a key and the mark behind it; returns the key, and the type that the mark tells."""
    stream = reading.stream
    first, *more = holes(reading.dialect.parameter_middle)
    start, *rest = parts(first)
    if start[0] in '">' and not more:  # ``<parameter=KEY>``, ``<parameter name="KEY" >``
        start, rest = ">", []
    written: list[str] = []
    draft.part((yield from stream.until(Marks((start,)), _both(draft, written))))
    kind = ""
    for part in [*rest, *more]:
        if part in ("{type}", "{string}"):
            kind = yield from stream.skip(NAME)
            draft.part(kind)
        else:
            draft.part(stream.take(max(0, (yield from stream.loosely(part)))))
    return "".join(written).strip(" \"'"), {"true": "string", "false": "other"}.get(kind, kind)


def _value(reading: Reading, draft: CallDraft) -> Wait[tuple[str | None, bool]]:
    """The text of one argument without its closing tag, None if it is cut off; and whether the call's end is taken too."""
    stream, dialect = reading.stream, reading.dialect
    close = dialect.parameter_close.strip()
    marks = Marks((close, _CDATA_OPEN) if dialect.cdata else (close,))
    plain: list[str] = []
    pieces: list[str] = []
    sections = False
    while True:
        mark = yield from stream.until(marks, _both(draft, plain))
        draft.part(mark)
        if mark == close and not dialect.cdata and not (yield from _is_end(reading)):
            plain.append(mark)  # the value speaks of the tag
            continue
        text = "".join(plain)
        plain.clear()
        if not mark:
            text_before = _unclosed(text, dialect)
            return text_before, text_before is not None
        if dialect.cdata:
            text = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
        if mark == _CDATA_OPEN:
            sections = True
            pieces.append(text if text.strip() else "")
            end = yield from stream.until(Marks((_CDATA_CLOSE,)), _both(draft, pieces))
            draft.part(end)
            if not end:
                return None, False
            continue
        if not sections or text.strip():
            pieces.append(text)
        return "".join(pieces), False


def _is_end(reading: Reading) -> Wait[bool]:
    """Whether what comes next may follow an argument."""
    stream, dialect = reading.stream, reading.dialect
    for mark in (dialect.parameter_open, dialect.call_close, *reading.closers.marks):
        if mark and (yield from stream.loosely(mark)) >= 0:
            return True
    return (yield from stream.over())


def _unclosed(text: str, dialect: Dialect) -> str | None:
    """An argument whose closing tag is missing, where the call's own is there; None if the answer is cut off in it."""
    marks = re.findall(r"<[^<>\s]+>|[^\s<]+", dialect.call_close)
    found = re.search(r"\s*" + r"\s*".join(map(re.escape, marks)) + r"\s*\Z", text) if marks else None
    return text[: found.start()] if found else None


def _typed(text: str, key: str, name: str, kind: str, reading: Reading) -> Any:
    """An argument's value, by what its mark or the tool's schema lets it be."""
    tags = reading.dialect.parameter_middle + reading.dialect.parameter_close.rstrip()
    if not reading.dialect.cdata and ("\n" in tags or (text[:1] == text[-1:] == "\n")):  # the line breaks belong to the tags
        text = text.removeprefix("\n").removesuffix("\n")
    if kind == "string":
        return text
    schema = None if kind else _schema_of(key, name, reading)
    types = set() if schema is None else _types(schema, reading.tools[name].parameters)
    raw_strings = reading.dialect.raw_strings
    if types == {"string"} and raw_strings:
        return text
    may_be_text = raw_strings and "string" in types
    try:
        value = read_json(text) if schema is None or may_be_text else read_sloppy_json(text)
    except BadValueError:
        return text
    # What looks like a string in quotes is one only where strings are written so.
    if isinstance(value, str) and raw_strings:
        return text
    kind = type_of(value)
    return value if not may_be_text or kind in types or (kind == "integer" and "number" in types) else text


def _schema_of(key: str, name: str, reading: Reading) -> Any:
    """The schema of an argument; None if the tool is unknown, and that of a string if the argument is."""
    tool = reading.tools.get(name)
    if tool is None:
        return None
    properties = reading.properties(name)
    if key in properties:
        return properties[key]
    more = tool.parameters.get("additionalProperties")
    return more if isinstance(more, Mapping) else {"type": "string"}


def _types(schema: Any, root: Mapping[str, Any]) -> set[str]:
    """The JSON types that a schema lets a value have; every one if it does not say."""
    found: set[str] = set()
    for part in _alternatives(schema, root):
        kind = part.get("type")
        if isinstance(kind, str):
            found.add(kind)
        elif isinstance(kind, list):
            found.update(item for item in kind if isinstance(item, str))
        elif isinstance(part.get("enum"), list):
            found.update(type_of(item) for item in part["enum"])
        elif "const" in part:
            found.add(type_of(part["const"]))
        else:
            found.update(TYPES.values())
    return found


def _alternatives(schema: Any, root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A schema, or what it refers to, or those of which it takes any one."""
    waiting = [(schema, 0)]
    while waiting:
        part, steps = waiting.pop()
        if not isinstance(part, Mapping) or steps > _MAX_REFERENCES:
            yield {}
            continue
        options = next((part[key] for key in ("anyOf", "oneOf") if isinstance(part.get(key), list)), None)
        reference = part.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/"):
            target: Any = root
            for step in reference[2:].split("/"):
                target = target.get(step) if isinstance(target, Mapping) else None
            waiting.append((target, steps + 1))
        elif options and len(options) <= 32:
            waiting.extend((option, steps + 4) for option in options)
        else:
            yield part


def _both(draft: CallDraft, kept: list[str]) -> Sink:
    def sink(text: str) -> None:
        draft.part(text)
        kept.append(text)

    return sink


# Probed


def probe(seen: Seen) -> Dialect | None:
    one, two = seen.one, seen.two
    number = str(FIRST.number)
    marks = [FIRST.name, FIRST.key, FIRST.value, FIRST.number_key, number]
    places = [one.find(mark) for mark in marks]
    if min(places) < 0 or places != sorted(places) or "{" in one[places[0] : places[4]]:
        return None
    ends = [place + len(mark) for place, mark in zip(places, marks, strict=True)]
    to_key, to_value, to_next, to_number = (one[ends[i] : places[i + 1]] for i in range(4))
    parameter_open = common_end(to_key, to_next)
    parameter_open = parameter_open[max(0, parameter_open.find("<")) :]
    rest = one[ends[4] :]
    # White space before the next parameter belongs to the end of this one, if it also follows the last.
    if rest.startswith(to_next[: len(to_next) - len(parameter_open.lstrip())]):
        parameter_open = parameter_open.lstrip()
    parameter_close = to_next.removesuffix(parameter_open)
    middle = _middle(to_value, to_number)
    if not middle or not parameter_open or not parameter_close or not rest.startswith(parameter_close):
        return None
    between = None
    if two is not None:
        first, second = two.find(number), two.rfind(number)
        other = two.find(SECOND.name, first)
        if 0 <= first < other < second:
            skip = len(number) + len(parameter_close)
            between = two[first + skip : other], two[second + skip :]
    return described(
        "tagged", one[: places[0]], rest[len(parameter_close) :], between,
        after_name=numbered(to_key.removesuffix(parameter_open), FIRST), parameter_open=parameter_open, parameter_middle=middle,
        parameter_close=parameter_close,
    )  # fmt: skip


def _middle(text: str, number: str) -> str:
    """The mark between key and value, as it is before a text and before a number."""
    if text == number:
        return text
    for hole, values in (("{type}", ("string", "number")), ("{string}", ("true", "false"))):
        if text.replace(values[0], hole) == number.replace(values[1], hole):
            return text.replace(values[0], hole)
    return ""
