"""A model's answer, as it comes, taken apart into words, thoughts and calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby

from agent.dialects.base import CallPart, Dialect, Piece, Style, TextPiece, Thinking, ThinkingPiece
from agent.dialects.read_code import gemma_call, python_call, python_calls
from agent.dialects.read_json import Trial, json_arguments, json_calls, named_call
from agent.dialects.read_tags import tagged_call
from agent.dialects.reading import CUT_OFF, Reading
from agent.dialects.stream import NAME, SPACE, Marks, Wait
from agent.messages import ToolSpec

_NAME_SIZE = 64
_PYTHON_TAG = "<|python_tag|>"
_READERS: dict[Style, Callable[[Reading, str], Wait[object]]] = {
    "json": json_calls, "named": named_call, "tagged": tagged_call, "python": python_calls, "gemma": gemma_call,
}  # fmt: skip


class StreamParser:
    """Reads one answer.

    The pieces do not depend on how the text is cut into feeds, once neighbouring pieces of a kind are joined. Words come as
    soon as they cannot be the beginning of a mark; white space waits for what follows it. The work is linear in the text's
    length, and no text makes it raise.

    Args:
        dialect: in which calls are written.
        tools: those the model was told of, by name. A call to another one is read as well.
        thinking: the marks of a thought, if the model thinks.
        started: the prompt ends within a thought.
        prefix: what of the answer the prompt ends with, such as the forced beginning of a call; read before the first feed.
        bare_calls: an answer that is nothing but a call's JSON without its marks is a call, in dialects that write calls as JSON.
    """

    def __init__(
        self, dialect: Dialect, tools: Mapping[str, ToolSpec], *, thinking: Thinking | None, started: bool = False,
        prefix: str = "", bare_calls: bool = True,
    ) -> None:  # fmt: skip
        self._out: list[Piece] = []
        self._reading = Reading(dialect, tools, self._out.append)
        self._dialect = dialect
        self._tools = tools
        json_style = dialect.style == "json" and bool(tools)
        self._bare = json_style and (bare_calls or dialect.only_at_start)
        self._space: list[str] = []  # white space after the words so far
        self._said = False  # whether there were words
        self._fresh = False  # whether a thought or a call came last: white space after it means nothing
        self._opening, self._closing = (thinking.open.rstrip("\n"), thinking.close) if thinking else ("", "")
        self._marks = Marks((self._opening, *self._reading.openers.marks))
        self._first = Marks((self._opening, self._closing, _PYTHON_TAG if dialect.only_at_start else ""))
        self._reader = self._answer(started, bool(prefix))
        self._over = False
        self._reading.stream.add(prefix)

    def feed(self, text: str) -> list[Piece]:
        """The next text of the answer, control tokens included. Returns what has become clear."""
        if not self._over:
            self._reading.stream.add(text)
            self._go_on()
        return self._taken()

    def finish(self) -> list[Piece]:
        """The answer is over. Returns what was still open; a call that is not whole is broken."""
        if not self._over:
            self._reading.stream.ended = True
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
            mark = yield from self._reading.stream.until(self._marks, self._say)
            if not mark:
                break
            if mark == self._opening:
                yield from self._thought()
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
            if mark == _PYTHON_TAG:
                self._space.clear()
                yield from self._tagged_python()
                return
            if mark == self._closing:
                self._after()
            else:
                yield from self._thought()
        if self._bare and not (yield from stream.starts(self._marks)) and (yield from stream.char()) in ("{", "[", "`"):
            yield from self._bare_call()

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
        yield from stream.until(Marks((self._closing,)), think)
        self._after()

    def _call(self, mark: str) -> Wait[None]:
        self._space.clear()
        yield from _READERS[self._dialect.style](self._reading, mark)
        yield from self._reading.past_call()
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
                before = mark + name + gap
                if next_one in ("{", '"'):
                    yield from json_arguments(self._reading, draft, before, name)
                else:
                    tape = self._reading.record(before)
                    yield from self._reading.give_up(draft, tape, "no JSON object follows" if next_one else CUT_OFF)
                yield from self._reading.past_call()
                self._after()
                return
            name += gap
        elif name == self._dialect.text_name and not (yield from stream.char()):
            return
        self._say(mark + name)

    def _tagged_python(self) -> Wait[None]:
        """Behind Llama's tag: JSON, or a Python call of a tool; other code is words."""
        stream = self._reading.stream
        yield from stream.skip(SPACE)
        if self._bare and (yield from stream.char()) in ("{", "["):
            yield from self._bare_call()
            return
        name = yield from stream.skip(NAME, _NAME_SIZE)
        tool = name.removesuffix(".call")
        if tool in self._tools and (yield from stream.char()) == "(":
            stream.take(1)
            yield from python_call(self._reading, self._reading.draft(), f"{_PYTHON_TAG}{name}(", tool)
            self._after()
        else:
            self._say(name)

    def _bare_call(self) -> Wait[None]:
        """JSON without marks. It is held back until it is known to be a call; otherwise it is read as words."""
        stream, reading = self._reading.stream, self._reading
        trial = Trial(reading)
        tape = stream.record()
        calls = yield from json_calls(reading, "", trial)
        if calls and not trial.won and not (yield from stream.char()):
            trial.end()
        text = stream.stop(tape)
        if trial.won:
            self._space.clear()
            yield from reading.past_call()
            self._after()
        else:
            trial.lose()
            stream.unread(text)

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
        self._out.append(TextPiece(lead + words))
