"""Calls whose arguments are JSON: an object with the name in it, or a name and then an object."""

from __future__ import annotations

import json
import re
from typing import Any

from agent.dialects.base import CallBroken, CallDone, Dialect, Piece
from agent.dialects.reading import CUT_OFF, CallDraft, Reading, is_name, own_id
from agent.dialects.stream import JSON, SPACE, Marks, Stream, Wait, ignore
from agent.dialects.values import MAX_DEPTH, BadValueError, checked, read_sloppy_json

_ARGUMENTS = ("arguments", "parameters", "args")
_KNOWN_KEYS = frozenset({"name", "function", "type", "id", *_ARGUMENTS})
_LETTERS = "abcdefghijklmnopqrstuvwxyz_ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_FENCE = re.compile(r"```\w*\s*$")
_BETWEEN = re.compile(r"<[^<>]*>|\[[A-Z_]+\]|>")


class Trial:
    """Decides whether JSON without marks is a call; until then the pieces wait.

    Where that is the family's way to write a call, a tool's name or a name with arguments is enough. Elsewhere the whole answer
    must be calls of known tools with arguments, so that JSON which a user asked for is never taken for a call.

    Attributes:
        won: it is a call.
    """

    def __init__(self, reading: Reading) -> None:
        self.won = False
        self._reading = reading
        self._at_once = reading.dialect.only_at_start
        self._emit = reading.emit
        self._held: list[Piece] = []
        self._named = False
        self._with_arguments = 0
        reading.emit = self._held.append

    def key(self, key: str) -> bool:
        """Whether an object with this key may still be a call."""
        if key in ("arguments", "parameters"):
            self._with_arguments += 1
            if self._at_once and self._named:
                self._win()
        return self.won or (key in _KNOWN_KEYS and key != "args")

    def name(self, name: str) -> bool:
        """Whether an object with this name may still be a call."""
        self._named = True
        known = name in self._reading.tools
        if known and self._at_once:
            self._win()
        return self.won or self._at_once or known

    def end(self) -> None:
        """The answer is over, and it was nothing else."""
        done = [piece for piece in self._held if isinstance(piece, CallDone)]
        broken = any(isinstance(piece, CallBroken) for piece in self._held)
        known = all(piece.call.name in self._reading.tools for piece in done)
        if not self._at_once and not broken and known and len(done) == self._with_arguments:
            self._win()

    def lose(self) -> None:
        """It was no call: what waited is forgotten."""
        self._reading.emit = self._emit
        self._reading.count = 0

    def _win(self) -> None:
        if not self.won:
            self.won = True
            self._reading.emit = self._emit
            for piece in self._held:
                self._emit(piece)


def json_calls(reading: Reading, opened: str, trial: Trial | None = None, *, listed: bool = False) -> Wait[bool]:
    """Read objects with a name and arguments: one, or several with or without list brackets, perhaps in a code fence.

    Args:
        reading: of the answer.
        opened: the mark before, which is taken.
        trial: may call it off as long as nothing is read.
        listed: the list's bracket is taken too.

    Returns:
        Whether calls were read, whole or broken; False only when ``trial`` called it off.
    """
    stream = reading.stream
    tape = reading.record(opened)
    read = 0
    fenced = over = False
    while True:
        yield from stream.skip(SPACE + ",;" if read else SPACE)
        opener = yield from stream.starts(reading.openers)
        next_one = yield from stream.char()
        if opener and not read and trial is None:
            stream.take(len(opener))
        elif next_one == "{" and not over:
            read += 1
            if not (yield from _object_call(reading, stream.stop(tape), trial)):
                return False
            tape = reading.record()
        elif next_one == "[" and not listed and not read:
            listed = True
            stream.take(1)
        elif next_one == "]" and listed:
            stream.take(1)
            listed, over = False, True
        elif next_one == "`" and (fenced or not read) and (yield from _skip_fence(stream)):
            fenced = not fenced
        elif next_one == "}" and read:
            stream.take(1)  # a brace too many
        else:
            if not read and not over and trial is None:
                why = "no JSON object follows" if next_one else CUT_OFF
                yield from reading.give_up(reading.draft(), tape, why)
                return True
            break
    stream.stop(tape)
    return trial is None or read > 0


def named_call(reading: Reading, opened: str) -> Wait[None]:
    """Read a name, perhaps an id, and then an object of arguments."""
    stream = reading.stream
    tape = reading.record(opened)
    written: list[str] = []
    mark = yield from stream.until(Marks(("{", '"', *reading.closers.marks)), written.append, leave=True)
    header = "".join(written)
    if mark == "{" and header.strip(SPACE + "[") == "":  # the older form of Mistral's, an object with the name in it
        stream.stop(tape)
        yield from json_calls(reading, opened + header, listed="[" in header)
        return
    draft = reading.draft()
    name, call_id = _header(header, reading.dialect.id_open)
    if not name or not mark:
        why = "it names no tool" if mark else CUT_OFF
        yield from reading.give_up(draft, tape, why)
        return
    if mark in reading.closers.marks:
        if name not in reading.tools and not header.rstrip().endswith(reading.dialect.after_name.strip()):
            yield from reading.give_up(draft, tape, "no arguments follow")
            return
        draft.name(name)  # a tool without arguments
        draft.part("{}")
        draft.done(stream.stop(tape), True, lambda: (name, {}, call_id))
        return
    draft.name(name)
    yield from json_arguments(reading, draft, stream.stop(tape), name, call_id)
    if _FENCE.search(header):
        yield from stream.skip(SPACE)
        yield from _skip_fence(stream)


def json_arguments(reading: Reading, draft: CallDraft, before: str, name: str, call_id: str = "") -> Wait[None]:
    """Read the arguments of a call whose name is known; ``before`` is what was taken of it."""
    tape = reading.record()
    whole = yield from reading.stream.value(draft.part, JSON)
    text = reading.stream.stop(tape)
    draft.done(before + text, whole, lambda: (name, _as_object(read_sloppy_json(text)), call_id))


def _object_call(reading: Reading, before: str, trial: Trial | None) -> Wait[bool]:
    draft = reading.draft()
    tape = reading.record()
    closed = yield from _object(reading, draft, trial, inner=False)
    text = reading.stream.stop(tape)
    if closed is None:
        reading.count -= 1
        return False
    # The arguments are one or two levels down.
    draft.done(before + text, closed, lambda: _shape(read_sloppy_json(text, MAX_DEPTH + 2), reading.dialect))
    return True


def _object(reading: Reading, draft: CallDraft, trial: Trial | None, *, inner: bool) -> Wait[bool | None]:
    """Take one object; whether it is closed, None if it was called off."""
    stream = reading.stream
    name_keys = {reading.dialect.name_key, "name", "function"}
    argument_keys = {reading.dialect.arguments_key, *_ARGUMENTS}
    stream.take(1)
    while True:
        yield from stream.skip(SPACE + ",")
        next_one = yield from stream.char()
        if next_one == "}":
            stream.take(1)
            return True
        if next_one not in ('"', "'"):
            break
        key = yield from _quoted(stream)
        yield from stream.skip(SPACE)
        if key is None or (yield from stream.char()) != ":":
            break
        stream.take(1)
        yield from stream.skip(SPACE)
        if trial and not trial.key(key):
            return None
        next_one = yield from stream.char()
        if key in name_keys and next_one in ('"', "'"):
            name = yield from _quoted(stream)
            if name is None:
                return False
            if trial and not trial.name(name):
                return None
            if is_name(name) and key != "function":
                draft.name(name)
        elif key == "function" and next_one == "{" and not inner:
            closed = yield from _object(reading, draft, trial, inner=True)
            if not closed:
                return closed
        elif not (yield from stream.value(draft.part if key in argument_keys else ignore, JSON)):
            return False
    # Not what it should look like: find its end, and let the one who parses it say what is wrong.
    return bool((yield from stream.brackets(ignore, JSON)))


def _quoted(stream: Stream) -> Wait[str | None]:
    written: list[str] = []
    if not (yield from stream.value(written.append, JSON)):
        return None
    text = "".join(written)
    if "\\" in text and text[0] == '"':
        try:
            return str(json.loads(text, strict=False))
        except ValueError:
            pass
    return text[1:-1]


def _skip_fence(stream: Stream) -> Wait[bool]:
    """Take a code fence and the word behind it if one comes next; other backticks stay."""
    if (yield from stream.starts(Marks(("```",)))) == "":
        return False
    yield from stream.skip("`")
    yield from stream.skip(_LETTERS, 16)
    return True


def _header(header: str, id_open: str) -> tuple[str, str]:
    """Name and id out of what stands before the arguments."""
    call_id = ""
    if id_open and id_open in header:
        header, _, rest = header.partition(id_open)
        call_id = own_id(rest.partition("[")[0].strip())
    parts = [part.strip() for part in _BETWEEN.split(_FENCE.sub("", header))]
    named = [part for part in parts if part]
    # DeepSeek writes the word "function" before the name.
    return (named[-1] if named and is_name(named[-1]) else ""), call_id


def _as_object(value: Any) -> Any:
    """Arguments that were written as a string of JSON, read once more."""
    if isinstance(value, str):
        return read_sloppy_json(value) if value.strip() else {}
    return {} if value is None else value


def _shape(value: Any, dialect: Dialect) -> tuple[str, Any, str]:
    """Name, arguments and id of an object."""
    if not isinstance(value, dict):
        raise BadValueError("it is not an object")
    inner = value.get("function")
    call_id = own_id(value.get(dialect.id_key)) if dialect.id_key else ""
    if isinstance(inner, dict):
        value = inner
    name = next((value[key] for key in (dialect.name_key, "name", "function") if isinstance(value.get(key), str)), "")
    if not name:
        raise BadValueError("it names no tool")
    for key in (dialect.arguments_key, *_ARGUMENTS):
        if key in value:
            return name, checked(_as_object(value[key])), call_id
    if set(value) <= _KNOWN_KEYS:
        return name, {}, call_id
    raise BadValueError(f"it has no {dialect.arguments_key!r}")
