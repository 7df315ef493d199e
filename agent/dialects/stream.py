"""Text that arrives piece by piece, and the few ways to read it.

A reader is written as a generator: it reads on as if the whole text were there, and yields when it must wait for more. What it
decides depends on the characters alone, never on where one piece of the stream ended and the next began.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Generator, Iterable
from functools import cache, lru_cache
from typing import TypeVar

_T = TypeVar("_T")
Wait = Generator[None, None, _T]  # a reader; what it returns
Sink = Callable[[str], object]

SPACE = " \t\r\n"
SPACES = frozenset(SPACE)
NAME = string.ascii_letters + string.digits + "_-."

_PARTS = re.compile(r"<[^<>\s]*>|[^<\s]+|<[^<>\s]*")
_MAX_GAP = 64


def ignore(text: str) -> None:
    """A sink for what nobody wants."""


@cache
def parts(mark: str) -> list[str]:
    """The parts of a mark between which white space may be: its tags and its words."""
    return _PARTS.findall(mark)


class Marks:
    """Some texts to look for. Where one is the beginning of another, the shorter one is what is found."""

    def __init__(self, marks: Iterable[str]) -> None:
        self.marks, self.pattern, self.prefixes, self._firsts, self.reach = _prepared(frozenset(marks))

    def held(self, text: str, start: int) -> int:
        """Where the longest end of ``text[start:]`` begins that may still become a mark; the text's length if no end may."""
        size = len(text)
        for at in range(max(start, size - self.reach), size):
            if text[at] in self._firsts and text[at:] in self.prefixes:
                return at
        return size


@lru_cache(maxsize=256)  # one answer looks for some dozen sets of marks, and the next one for the same
def _prepared(marks: frozenset[str]) -> tuple[tuple[str, ...], re.Pattern[str], frozenset[str], frozenset[str], int]:
    """Those that are looked for, a pattern that finds them, their beginnings, their first characters, the longest beginning."""
    unique = marks - {""}
    found = tuple(sorted(m for m in unique if not any(m != o and m.startswith(o) for o in unique)))
    pattern = re.compile("|".join(map(re.escape, found)) or r"(?!)")
    prefixes = frozenset(mark[:size] for mark in found for size in range(1, len(mark)))
    return found, pattern, prefixes, frozenset(mark[0] for mark in found), max((len(mark) - 1 for mark in found), default=0)


class Lexis:
    """What encloses what in a notation: brackets, and quotes between which nothing else counts.

    Args:
        brackets: opening and closing ones.
        quotes: single characters; a backslash takes the character behind it.
        quote: a mark that encloses strings without escapes.
        stops: marks that end everything where they stand outside of quotes, whatever brackets are open.
    """

    def __init__(
        self, brackets: str = "{}[]", quotes: str = "\"'", quote: str = "", stops: Iterable[str] = ()
    ) -> None:  # fmt: skip
        inside = {mark: Marks((mark, "\\")) for mark in quotes}
        if quote and quote not in inside:
            inside[quote] = Marks((quote,))
        self.inside = inside
        self.stops = frozenset(stops)
        self.outside = Marks((*brackets, *inside, *self.stops))


_SCALAR_END = Marks((",", "}", "]"))


class Tape:
    """What was taken from a stream since some moment, up to a number of characters."""

    def __init__(self, limit: int | None, text: str = "") -> None:
        self._parts = [text]
        self._room = limit

    def add(self, text: str) -> None:
        if self._room is not None:
            text = text[: self._room]
            self._room -= len(text)
        if text:
            self._parts.append(text)

    @property
    def text(self) -> str:
        return "".join(self._parts)


class Stream:
    """The text that has come and is not yet taken."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._tapes: list[Tape] = []
        self.ended = self.cut = False
        self.taken = 0  # how many characters were taken

    def add(self, text: str) -> None:
        """More has come. Readers leave at most the beginning of a mark untaken, so this copies little."""
        self._text = self._text[self._at :] + text
        self._at = 0

    def record(self, limit: int | None = None, text: str = "") -> Tape:
        """Keep what is taken from now on, after ``text``; at most ``limit`` characters of it."""
        tape = Tape(limit, text)
        self._tapes.append(tape)
        return tape

    def stop(self, tape: Tape) -> str:
        """What was taken since then."""
        self._tapes.remove(tape)
        return tape.text

    def drop_half(self, marks: Marks) -> None:
        """Forget the end of what has come that is the beginning of a mark."""
        self._text = self._text[: marks.held(self._text, self._at)]

    def unread(self, text: str) -> None:
        """Put back what was taken."""
        self._text = text + self._text[self._at :]
        self._at = 0
        self.taken -= len(text)

    def take(self, count: int) -> str:
        return self._take(self._at + count)

    def char(self) -> Wait[str]:
        """The next character, left where it is; empty at the end."""
        while self._at >= len(self._text) and not self.ended:
            yield
        return self._text[self._at : self._at + 1]

    def starts(self, marks: Marks) -> Wait[str]:
        """The mark that comes next, left where it is; empty if none does."""
        while True:
            found = marks.pattern.match(self._text, self._at)
            if found:
                return found[0]
            rest = len(self._text) - self._at
            if self.ended or rest > marks.reach or (rest and self._text[self._at :] not in marks.prefixes):
                return ""
            yield

    def loosely(self, mark: str) -> Wait[int]:
        """How many characters a mark that comes next takes up, whatever white space is between its parts; -1 if it does not come.

        Nothing is taken. There may be ``_MAX_GAP`` characters of white space before each part.
        """
        wanted = parts(mark)
        while True:
            end = self._at
            for part in wanted:
                start = end
                while self._text[end : end + 1] in SPACES and end - start < _MAX_GAP:
                    end += 1
                there = self._text[end : end + len(part)]
                if there != part:
                    if not part.startswith(there):
                        return -1
                    if self.ended:  # half a mark of an answer that was cut is as good as all of it
                        return len(self._text) - self._at if self.cut and end + len(there) > self._at else -1
                    break
                end += len(part)
            else:
                return end - self._at
            yield

    def over(self) -> Wait[bool]:
        """Whether nothing but a little white space is left; nothing is taken."""
        while not self.ended and len(self._text) - self._at < _MAX_GAP and not self._text[self._at :].strip(SPACE):
            yield
        return self.ended and not self._text[self._at :].strip(SPACE)

    def expect(self, mark: str) -> Wait[bool]:
        """Take a mark if it comes next, whatever white space is between its parts."""
        size = yield from self.loosely(mark)
        self.take(max(0, size))
        return size >= 0

    def skip(self, characters: str, limit: int | None = None) -> Wait[str]:
        """Take a run of some characters, at most ``limit`` of them."""
        run: list[str] = []
        left = limit
        while left is None or left > 0:
            size = len(self._text)
            end = start = self._at
            stop = size if left is None else min(size, start + left)
            while end < stop and self._text[end] in characters:
                end += 1
            run.append(self._take(end))
            if left is not None:
                left -= end - start
            if end < size or self.ended:
                break
            yield
        return "".join(run)

    def until(self, marks: Marks, sink: Sink, *, leave: bool = False) -> Wait[str]:
        """Take everything up to a mark, which is taken too (unless ``leave``) and returned; empty if the stream ends first.

        What stands before it goes to ``sink`` as soon as it cannot be the beginning of a mark.
        """
        while True:
            hold = len(self._text) if self.ended else marks.held(self._text, self._at)
            found = marks.pattern.search(self._text, self._at)
            # A mark that may have begun earlier goes before one that is whole.
            if found and found.start() < hold:
                sink(self._take(found.start()))
                return found[0] if leave else self._take(found.end())
            if hold > self._at:
                sink(self._take(hold))
            if self.ended:
                return ""
            yield

    def value(self, sink: Sink, lexis: Lexis) -> Wait[bool]:
        """Take one value, all of it to ``sink``; False if the stream ends in it."""
        mark = yield from self.starts(lexis.outside)
        if mark in lexis.inside:
            sink(self.take(len(mark)))
            return (yield from self._string(sink, lexis, mark))
        if mark in ("{", "[", "("):
            sink(self.take(1))
            closing = yield from self.brackets(sink, lexis)
            sink(closing)
            return bool(closing)
        return bool((yield from self.until(_SCALAR_END, sink, leave=True)))

    def brackets(self, sink: Sink, lexis: Lexis) -> Wait[str]:
        """Within a bracket that is taken: take everything up to its closing one, which is returned and not passed on."""
        depth = 1
        while True:
            mark = yield from self.until(lexis.outside, sink, leave=True)
            if not mark or mark in lexis.stops:
                return ""
            self.take(len(mark))
            if mark in lexis.inside:
                sink(mark)
                if not (yield from self._string(sink, lexis, mark)):
                    return ""
                continue
            depth += 1 if mark in "{[(" else -1
            if depth == 0:
                return mark
            sink(mark)

    def _string(self, sink: Sink, lexis: Lexis, quote: str) -> Wait[bool]:
        while True:
            mark = yield from self.until(lexis.inside[quote], sink)
            if not mark:
                return False
            sink(mark)
            if mark == quote:
                return True
            if not (yield from self.char()):
                return False
            sink(self.take(1))

    def _take(self, end: int) -> str:
        text = self._text[self._at : end]
        self._at = end
        self.taken += len(text)
        if text:
            for tape in self._tapes:
                tape.add(text)
        return text
