"""A model's answer, as it comes, taken apart into words, thoughts and calls."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

from agent.dialects.base import CallBroken, CallDone, CallPart, Dialect, Piece, TextPiece, Thinking, ThinkingPiece
from agent.dialects.read_code import gemma_call, python_call, python_calls
from agent.dialects.read_json import ObjectWatch, json_arguments, json_calls, named_call
from agent.dialects.read_tags import tagged_call
from agent.dialects.reading import CUT_OFF, Reading
from agent.dialects.stream import SPACE, Marks, Wait
from agent.messages import ToolSpec

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."
_NAME_SIZE = 64
_PYTHON_TAG = "<|python_tag|>"
_ARGUMENTS = frozenset({"arguments", "parameters"})
_CALL_KEYS = frozenset({"name", "type", "function", "id", *_ARGUMENTS})


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
        self._thinking = thinking
        json_style = dialect.style == "json" and bool(tools)
        self._bare = json_style and (bare_calls or dialect.only_at_start)
        self._space: list[str] = []  # white space after the words so far
        self._said = False  # whether there were words
        self._fresh = False  # whether a thought or a call came last: white space after it means nothing
        open_mark = (thinking.open.rstrip("\n"),) if thinking else ()
        self._marks = Marks((*open_mark, *self._reading.openers.marks))
        close_mark = (thinking.close,) if thinking else ()
        self._first = Marks((*open_mark, *close_mark, _PYTHON_TAG if dialect.only_at_start else ""))
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
        try:
            next(self._reader)
        except StopIteration:
            self._over = True

    def _taken(self) -> list[Piece]:
        pieces: list[Piece] = []
        for _, group in groupby(self._out, key=lambda piece: piece.index if isinstance(piece, CallPart) else id(piece)):
            run = list(group)
            first = run[0]
            if isinstance(first, CallPart) and len(run) > 1:
                pieces.append(CallPart(first.index, "".join(piece.text for piece in run if isinstance(piece, CallPart))))
            else:
                pieces.extend(run)
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
            if self._thinking and mark == self._thinking.open.rstrip("\n"):
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
            if self._thinking and mark == self._thinking.close:
                self._after()
            else:
                yield from self._thought()
        if self._bare and not (yield from stream.starts(self._marks)) and (yield from stream.char()) in ("{", "[", "`"):
            yield from self._bare_call()

    def _thought(self) -> Wait[None]:
        if self._thinking is None:
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
        again = yield from stream.starts(Marks((self._thinking.open.rstrip("\n"),)))
        stream.take(len(again))  # the prompt opened it, and the model does so too
        yield from stream.until(Marks((self._thinking.close,)), think)
        self._after()

    def _call(self, mark: str) -> Wait[None]:
        self._space.clear()
        style = self._dialect.style
        if style == "json":
            yield from json_calls(self._reading, mark)
        elif style == "named":
            yield from named_call(self._reading, mark)
        elif style == "tagged":
            yield from tagged_call(self._reading, mark)
        elif style == "python":
            yield from python_calls(self._reading, mark)
        else:
            yield from gemma_call(self._reading, mark)
        yield from self._reading.past_call()
        self._after()

    def _recipient(self, mark: str) -> Wait[None]:
        """A name on a line of its own, and what is meant for it: words, or a tool's arguments. Anything else is words."""
        stream = self._reading.stream
        name = yield from stream.skip(_LETTERS, _NAME_SIZE)
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
        name = yield from stream.skip(_LETTERS, _NAME_SIZE)
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
        trial = _Trial(reading, self._tools, self._out, at_once=self._dialect.only_at_start)
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
            reading.emit = self._out.append
            reading.count = 0
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


class _Trial(ObjectWatch):
    """Decides whether JSON without marks is a call; until then the pieces wait.

    Where that is the family's way to write a call, a tool's name or a name with arguments is enough. Elsewhere the whole answer
    must be calls of known tools with arguments, so that JSON which a user asked for is never taken for a call.
    """

    def __init__(self, reading: Reading, tools: Mapping[str, ToolSpec], out: list[Piece], *, at_once: bool) -> None:
        self.won = False
        self._reading = reading
        self._tools = tools
        self._out = out
        self._at_once = at_once
        self._held: list[Piece] = []
        self._named = False
        self._with_arguments = 0
        reading.emit = self._held.append

    def key(self, key: str) -> bool:
        if key in _ARGUMENTS:
            self._with_arguments += 1
            if self._at_once and self._named:
                self._win()
        return self.won or key in _CALL_KEYS

    def name(self, name: str) -> bool:
        self._named = True
        if name in self._tools and self._at_once:
            self._win()
        return self.won or self._at_once or name in self._tools

    def end(self) -> None:
        """The answer is over, and it was nothing else."""
        done = [piece for piece in self._held if isinstance(piece, CallDone)]
        broken = any(isinstance(piece, CallBroken) for piece in self._held)
        known = all(piece.call.name in self._tools for piece in done)
        if not self._at_once and not broken and known and len(done) == self._with_arguments:
            self._win()

    def _win(self) -> None:
        if not self.won:
            self.won = True
            self._out.extend(self._held)
            self._reading.emit = self._out.append
