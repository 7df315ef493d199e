"""A model's answer, as it comes, taken apart into words, thoughts and calls."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import groupby

from agent.dialects.base import CallPart, Dialect, Piece, TextPiece, Thinking, ThinkingPiece
from agent.dialects.forms import FOREIGN_MARKS, STRAY, Trial, calls, foreign, section, starters
from agent.dialects.reading import CUT_OFF, Reading
from agent.dialects.stream import NAME, SPACE, Marks, Sink, Wait, ignore
from agent.dialects.styles.json import json_arguments
from agent.messages import ToolSpec

_NAME_SIZE = 64
_PYTHON_TAG = "<|python_tag|>"
_TAIL = 200  # of the words so far, what is kept to see how a line begins
_HALF = re.compile(r'(?:```\w*\s*)?\[?\{\s*"(?:|n|na|nam|name|name"|name"\s*:|name"\s*:\s*"(?P<name>[^"]*))\Z')


@lru_cache(maxsize=16)
def _line_marks(marks: tuple[str, ...], names: tuple[str, ...], openers: tuple[str, ...]) -> Marks:
    """What to look for in words: the given marks, and with tools, what begins a line like a call without its mark."""
    return Marks((*marks, *openers, *(starters(names, Marks(openers), "\n") if names else ())))


class StreamParser:
    """Reads one answer.

    The pieces do not depend on how the text is cut into feeds, once neighbouring pieces of a kind are joined. Words come as
    soon as they cannot be the beginning of a mark; white space waits for what follows it. The work is linear in the text's
    length, and no text makes it raise.

    A call's mark inside a thought is part of the thought; only where the answer ends without ending the thought, it is a call.

    Args:
        dialect: in which calls are written.
        tools: those the model was told of, by name. A call to another one is read as well, but only between the dialect's marks.
        thinking: the marks of a thought, if the model thinks.
        started: the prompt ends within a thought.
        prefix: what of the answer the prompt ends with, such as the forced beginning of a call; read before the first feed.
        bare_calls: what begins an answer, or a line of it, like a call without its marks may be one; see ``Trial``.
    """

    def __init__(
        self, dialect: Dialect, tools: Mapping[str, ToolSpec], *, thinking: Thinking | None, started: bool = False,
        prefix: str = "", bare_calls: bool = True,
    ) -> None:  # fmt: skip
        self._out: list[Piece] = []
        self._reading = Reading(dialect, tools, self._out.append)
        self._dialect = dialect
        self._tools = tools
        names = tuple(tools) if bare_calls and not dialect.text_name else ()
        self._at_once = dialect.only_at_start and bool(tools)
        self._bare = Marks(("[", "`", *starters(names, self._reading.openers, "")) if names else ("{", "[", "`") * self._at_once)
        self._space: list[str] = []  # white space after the words so far
        self._said = False  # whether there were words
        self._tail = ""  # the last of them
        self._fenced = False  # whether they are in a code block
        self._fresh = False  # whether a thought or a call came last: white space after it means nothing
        self._tried = 0  # up to where what looked like a call is known to be none
        self._in_words = False
        self._opening, self._closing = (thinking.open.rstrip("\n"), thinking.close) if thinking else ("", "")
        self._marks = _line_marks((self._opening, *dialect.silent), names, self._reading.openers.marks)
        self._first = Marks((self._opening, self._closing, *dialect.silent, _PYTHON_TAG if dialect.only_at_start else ""))
        self._reader = self._answer(started, bool(prefix))
        self._over = False
        self._reading.stream.add(prefix)

    def feed(self, text: str) -> list[Piece]:
        """The next text of the answer, control tokens included. Returns what has become clear."""
        if not self._over:
            self._reading.stream.add(text)
            self._go_on()
        return self._taken()

    def finish(self, cut: bool = False) -> list[Piece]:
        """The answer is over; ``cut``: the model did not end it. Returns what was still open; a call that is not whole is broken.

        Half a mark of a call at the end of an answer that was cut is dropped.
        """
        if not self._over:
            stream = self._reading.stream
            stream.ended, stream.cut = True, cut
            if cut:
                marks = self._marks if self._in_words else Marks((*self._reading.closers.marks, *STRAY.marks))
                stream.drop_half(marks)
            self._go_on()
        return self._taken()

    def _go_on(self) -> None:
        self._over = next(self._reader, True) is True  # a reader that waits yields None

    def _taken(self) -> list[Piece]:
        pieces: list[Piece] = []
        for _, group in groupby(self._out, key=lambda piece: piece.index if isinstance(piece, CallPart) else id(piece)):
            first, *rest = group
            if isinstance(first, CallPart):
                first = CallPart(first.index, first.text + "".join(part.text for part in rest if isinstance(part, CallPart)))
            pieces.append(first)
        self._out.clear()
        return pieces

    def _answer(self, started: bool, prefixed: bool) -> Wait[None]:
        if started:
            yield from self._thought()
        if self._dialect.text_name:
            if prefixed:
                mark = yield from self._reading.stream.starts(Marks((self._dialect.trigger,)))
                self._reading.stream.take(len(mark))
            yield from self._recipient("")
        else:
            yield from self._beginning()
        while True:
            self._in_words = True
            mark = yield from self._reading.stream.until(self._marks, self._say)
            self._in_words = False
            if not mark:
                break
            if mark == self._opening:
                yield from self._thought()
            elif mark in self._dialect.silent:
                self._after()
            elif mark[0] == "\n" and mark not in self._reading.openers.marks:
                yield from self._line(mark)
            elif self._dialect.text_name:
                yield from self._recipient(mark)
            else:
                yield from self._call(mark)
        rest = "".join(self._space)
        if rest and self._said and not self._fresh:
            self._out.append(TextPiece(rest))

    def _beginning(self) -> Wait[None]:
        """Up to the first word: thoughts, a mark that closes one that was never opened, a call without its marks."""
        stream = self._reading.stream
        while True:
            self._space.append((yield from stream.skip(SPACE)))
            mark = yield from stream.starts(self._first)
            if not mark:
                break
            stream.take(len(mark))
            if mark == self._opening:
                yield from self._thought()
            else:
                self._after()
                if mark == _PYTHON_TAG:
                    yield from stream.skip(SPACE)
        if not (yield from stream.starts(self._reading.openers)) and (yield from stream.starts(self._bare)):
            yield from self._bare_call(at_once=self._at_once)

    def _line(self, mark: str) -> Wait[None]:
        """A line of words that begins like a call. Behind a colon or in a code block it is quoted."""
        self._say("\n")
        stream = self._reading.stream
        stream.unread(mark[1:])
        line = self._tail.rstrip()
        if not self._fenced and not line.endswith(":") and stream.taken >= self._tried:
            yield from self._bare_call(at_once=False)

    def _thought(self) -> Wait[None]:
        if not self._opening:
            return
        stream = self._reading.stream
        space: list[str] = []
        begun = False

        def think(text: str) -> None:
            nonlocal begun
            body = text if begun else text.lstrip()
            if not body:
                return
            begun = True
            words = body.rstrip()
            if words:
                self._out.append(ThinkingPiece("".join(space) + words))
                space.clear()
            space.append(body[len(words) :])

        self._space.clear()
        yield from stream.skip(SPACE)
        again = yield from stream.starts(Marks((self._opening,)))
        stream.take(len(again))  # the prompt opened it, and the model does so too
        mark = yield from stream.until(Marks((self._closing, *self._reading.openers.marks)), think)
        if mark and mark != self._closing:
            yield from self._call_in_thought(mark, think)
        self._after()

    def _call_in_thought(self, mark: str, think: Sink) -> Wait[None]:
        """Behind the mark of a call in a thought: wait for the thought's end, and without one read the call."""
        stream, reading = self._reading.stream, self._reading
        tape = stream.record(None, mark)
        closed = yield from stream.until(Marks((self._closing,)), ignore)
        text = stream.stop(tape)
        if closed:
            think(text.removesuffix(closed))
            return
        stream.unread(text)
        while (yield from stream.until(reading.openers, think, leave=True)):
            trial = Trial(reading, at_once=False)
            tape = stream.record()
            mark = yield from stream.starts(reading.openers)
            stream.take(len(mark))
            reading.trial = None  # its own marks make it a call
            yield from section(reading, mark)
            text = stream.stop(tape)
            if not trial.end():
                think(text)
            else:
                self._said = False

    def _call(self, mark: str) -> Wait[None]:
        self._space.clear()
        yield from section(self._reading, mark)
        self._after()

    def _recipient(self, mark: str) -> Wait[None]:
        """A name on a line of its own, and what is meant for it: words, or a tool's arguments. Anything else is words."""
        stream = self._reading.stream
        name = yield from stream.skip(NAME, _NAME_SIZE)
        if name and (yield from stream.char()) == "\n":
            if name == self._dialect.text_name:
                stream.take(1)
                self._after()
                return
            gap = yield from stream.skip(SPACE)
            next_one = yield from stream.char()
            if next_one in ("{", '"') or name in self._tools:
                self._space.clear()
                draft = self._reading.draft()
                draft.name(name)
                self._reading.begin(mark + name + gap)
                if next_one in ("{", '"'):
                    yield from json_arguments(self._reading, draft, name)
                else:
                    yield from self._reading.give_up(draft, "no JSON object follows" if next_one else CUT_OFF)
                yield from self._reading.past_call()
                self._after()
                return
            name += gap
        elif not (yield from stream.char()) and (name == self._dialect.text_name or self._is_half(name)):
            return
        self._say(mark + name)

    def _bare_call(self, *, at_once: bool) -> Wait[None]:
        """What may be calls without their marks. It is held back until that is known; otherwise it is read as words."""
        stream, reading = self._reading.stream, self._reading
        trial = Trial(reading, at_once)
        tape = stream.record()
        closed = False
        while True:
            reading.begin()
            mark = yield from stream.starts(FOREIGN_MARKS)
            if mark and mark not in reading.openers.marks:
                yield from foreign(reading, mark)
            elif not (yield from calls(reading)):
                break
            if trial.won:
                break
            yield from stream.skip(SPACE)
            while stray := (yield from stream.starts(STRAY)):
                closed = True
                stream.take(len(stray))
                yield from stream.skip(SPACE)
            if not (yield from stream.starts(self._bare)):
                closed = closed or not (yield from stream.char())
                break
        reading.written()
        text = stream.stop(tape)
        if (trial.end() if closed or trial.won else trial.lose()) or self._is_half(text):
            self._space.clear()
            yield from reading.past_call()
            self._after()
        else:
            self._tried = stream.taken
            stream.unread(text)

    def _is_half(self, text: str) -> bool:
        """Whether an answer that was cut ends in the first half of a call of an offered tool: that is no words."""
        if not self._reading.stream.cut:
            return False
        found = _HALF.fullmatch(text.strip())
        half = text if self._dialect.text_name else found and (found["name"] or "")
        return half is not None and any(name.startswith(half) for name in self._tools)

    def _after(self) -> None:
        """A thought or a call is over."""
        self._space.clear()
        self._fresh = True

    def _say(self, text: str) -> None:
        body = text.lstrip()
        if not body:
            self._space.append(text)
            return
        lead = "".join(self._space) + text[: len(text) - len(body)]
        if self._fresh:
            lead = "\n" if self._said else ""
        words = body.rstrip()
        self._space = [body[len(words) :]]
        self._fresh = False
        self._said = True
        self._fenced ^= (self._tail[-2:] + text).count("```") % 2 == 1
        self._tail = (self._tail + text)[-_TAIL:]
        self._out.append(TextPiece(lead + words))
