"""What the readers of all styles share: the stream, the pieces that come out, and one call on its way."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from agent.dialects.base import CallBroken, CallDone, CallPart, CallStart, Dialect, Piece
from agent.dialects.stream import SPACE, Lexis, Marks, Stream, Tape, Wait, ignore
from agent.dialects.values import MAX_CHARACTERS, BadValueError, checked
from agent.messages import ToolCall, ToolSpec

CUT_OFF = "the answer ended inside the call"
_RAW_ROOM = MAX_CHARACTERS + 4096  # of a broken call, what is kept
_MARK = re.compile(r"<[^<>\s]+>")
_NAME = re.compile(r"[\w.:/\-]{1,128}")
_ID = re.compile(r"[A-Za-z0-9]{9}")


def is_name(text: str) -> bool:
    """Whether it may be what a model calls a tool, known or not."""
    return _NAME.fullmatch(text) is not None


def own_id(text: object) -> str:
    """A call's id, if it is one that every family's template takes."""
    return text if isinstance(text, str) and _ID.fullmatch(text) else ""


def _tags(mark: str) -> list[str]:
    """The tags in a mark, brackets and fences left out; or the whole of it where words are between them."""
    found = _MARK.findall(mark)
    return [mark.strip()] if found and _MARK.sub("", mark).strip(" \n]})`") else found


class Watch(Protocol):
    """Told of what an object says as it comes, so that what is no call can be given up early."""

    def key(self, key: str) -> bool:
        """Whether an object with this key may still be a call."""

    def name(self, name: str) -> bool:
        """Whether an object with this name may still be a call."""


class Reading:
    """One answer that is being read.

    Attributes:
        emit: takes the pieces.
        count: how many calls have begun.
        closers: marks that may stand after a call.
        openers: marks with which a call or a section of calls begins.
        trial: whether it is a call at all is still open, and this one decides; None otherwise.
        json, code: what encloses what in JSON and in Python; the mark behind a call ends both, however many brackets are open.
    """

    def __init__(self, dialect: Dialect, tools: Mapping[str, ToolSpec], emit: Callable[[Piece], object]) -> None:
        self.stream = Stream()
        self.tools = tools
        self.emit = emit
        self.count = 0
        self.trial: Watch | None = None
        self._tape: Tape | None = None
        self.use(dialect)

    def use(self, dialect: Dialect) -> None:
        """Read what comes as this dialect's."""
        self.dialect = dialect
        self.closers = Marks((*_tags(dialect.call_close), *_tags(dialect.section_close)))
        # Within a section of several calls each has a mark of its own; it may also come without the section's.
        self.openers = Marks(
            () if dialect.only_at_start else (dialect.trigger, *dialect.aliases, dialect.call_mark)
        )  # fmt: skip
        self.json = Lexis(stops=self.closers.marks)
        self.code = Lexis("{}[]()", stops=self.closers.marks)
        self._edges = Marks((*self.closers.marks, *self.openers.marks))

    def draft(self) -> CallDraft:
        self.count += 1
        return CallDraft(self, self.count - 1)

    def begin(self, text: str = "") -> None:
        """A call begins with ``text``, which is taken. What it is written like is kept, for the case that it is broken."""
        self.written()
        self._tape = self.stream.record(_RAW_ROOM, text)

    def written(self) -> str:
        """What was taken since ``begin``; nothing more is kept."""
        tape, self._tape = self._tape, None
        return "" if tape is None else self.stream.stop(tape)

    def give_up(self, draft: CallDraft, why: str) -> Wait[None]:
        """What began cannot be a call: take it up to its close mark, the next call or the end."""
        mark = yield from self.stream.until(self._edges, ignore, leave=True)
        if mark in self.closers.marks:
            self.stream.take(len(mark))
        draft.broken(why)

    def past_call(self) -> Wait[None]:
        """Take what may stand after a call: white space and close marks."""
        while True:
            yield from self.stream.skip(SPACE)
            mark = yield from self.stream.starts(self.closers)
            if not mark:
                return
            self.stream.take(len(mark))

    def stopped(self) -> Wait[bool]:
        """Whether the mark behind a call comes next."""
        return bool((yield from self.stream.starts(self.closers)))

    def properties(self, name: str) -> Mapping[str, Any]:
        """The arguments that a tool declares: name -> schema; empty for an unknown one."""
        found = self.tools[name].parameters.get("properties") if name in self.tools else None
        return found if isinstance(found, Mapping) else {}


class CallDraft:
    """One call on its way; it ends with ``done`` or ``broken``."""

    def __init__(self, reading: Reading, index: int) -> None:
        self._reading = reading
        self._index = index
        self._name = ""
        self._early: list[str] = []  # arguments that came before the name
        self._size = 0

    def name(self, name: str) -> None:
        if self._name or not name:
            return
        self._name = name
        self._reading.emit(CallStart(self._index, name))
        for text in self._early:
            self._reading.emit(CallPart(self._index, text))
        self._early.clear()

    def part(self, text: str) -> None:
        room = MAX_CHARACTERS - self._size
        self._size += len(text)
        text = text[: max(0, room)]
        if not text:
            return
        if self._name:
            self._reading.emit(CallPart(self._index, text))
        else:
            self._early.append(text)

    @property
    def too_long(self) -> bool:
        return self._size > MAX_CHARACTERS

    def done(self, whole: bool, read: Callable[[], tuple[str, Any, str]]) -> None:
        """The text of the call is taken. What it says is checked once more, since it will be stored and written back.

        Args:
            whole: whether it has an end.
            read: name, arguments and id, or BadValueError; not called for a text that is not whole, or too long.
        """
        try:
            if not whole:
                raise BadValueError(CUT_OFF)
            if self.too_long:
                raise BadValueError(f"its arguments have more than {MAX_CHARACTERS:,} characters")
            name, arguments, call_id = read()
            if not isinstance(arguments, dict):
                raise BadValueError("its arguments are not an object")
            if not is_name(name):
                raise BadValueError("it names no tool")
            checked(arguments)
        except BadValueError as error:
            self.broken(str(error))
            return
        self.name(name)
        self._reading.written()
        self._reading.emit(CallDone(self._index, ToolCall(name, arguments, call_id)))

    def broken(self, why: str) -> None:
        self._reading.emit(CallBroken(self._index, self._reading.written(), why))
