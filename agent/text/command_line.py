"""A command as a model writes it: split into words as a shell would, with what only a shell could do found and named.

Source: POSIX.1-2017, Shell Command Language, 2.2 (quoting), 2.3 (tokens) and 2.10 (operators).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_OPERATORS = {
    "|": "a pipe", "&": "a background job or &&", ";": "a second command", "<": "a redirection", ">": "a redirection",
    "(": "a subshell", ")": "a subshell", "`": "a command substitution", "\n": "a second line",
}  # fmt: skip
_WILD = frozenset("*?[")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a command.

    Attributes:
        text: without its quotes.
        start, end: where it stands in the command.
        wild: whether it has unquoted wildcards.
    """

    text: str
    start: int
    end: int
    wild: bool = False


@dataclass(frozen=True, slots=True)
class Operator:
    """Something that only a shell could do, at ``start`` to ``end``; ``what`` says it in words."""

    start: int
    end: int
    what: str


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command, read.

    Attributes:
        words: in order, those of all its parts.
        operators: what a shell would act upon; empty for a plain command.
        broken: why it cannot be read, as for a quote that does not end; empty when it can.
    """

    words: tuple[Word, ...]
    operators: tuple[Operator, ...]
    broken: str = ""

    @property
    def plain(self) -> bool:
        """Whether it is one program and its arguments, nothing else."""
        return not self.broken and not self.operators and bool(self.words) and not _ASSIGNMENT.match(self.words[0].text)

    @property
    def argv(self) -> tuple[str, ...]:
        return tuple(word.text for word in self.words)

    def parts(self) -> Iterator[tuple[Word, ...]]:
        """The words of each single command: what stands between pipes, ``;``, ``&&`` and the like."""
        ends = [o.start for o in self.operators if o.what not in ("a redirection", "a variable")]
        part: list[Word] = []
        for word in self.words:
            while ends and ends[0] < word.start:
                ends.pop(0)
                if part:
                    yield tuple(part)
                part = []
            part.append(word)
        if part:
            yield tuple(part)


def read_command(command: str) -> CommandLine:
    """Read a command. Never raises: what cannot be read is said in ``broken``."""
    if "\0" in command:
        return CommandLine((), (), "it holds a NUL character")
    reader = _ShellReader(command)
    reader.read()
    return CommandLine(tuple(reader.words), tuple(reader.operators), reader.broken)


class _ShellReader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.words: list[Word] = []
        self.operators: list[Operator] = []
        self.broken = ""
        self._at = 0
        self._word: list[str] | None = None
        self._start, self._wild = 0, False

    def read(self) -> None:
        while self._at < len(self.text) and not self.broken:
            char = self.text[self._at]
            if char in " \t\r":
                self._end_word()
                self._at += 1
            elif char == "#" and self._word is None:
                self._operator("a comment", len(self.text) - self._at)
            elif char == "'":
                self._single()
            elif char == '"':
                self._double()
            elif char == "\\":
                self._escape()
            elif char in _OPERATORS:
                self._end_word()
                self._operator(_OPERATORS[char], 1)
            elif char == "$" and re.match(r"[\w({'\"@*#?$!-]", self.text[self._at + 1 :]):
                self._dollar()
            else:
                self._wild |= char in _WILD
                self._add(char, 1)
        self._end_word()

    def _add(self, text: str, length: int) -> None:
        if self._word is None:
            self._word, self._start = [], self._at
        self._word.append(text)
        self._at += length

    def _end_word(self) -> None:
        if self._word is not None:
            self.words.append(Word("".join(self._word), self._start, self._at, self._wild))
        self._word, self._wild = None, False

    def _operator(self, what: str, length: int) -> None:
        self.operators.append(Operator(self._at, self._at + length, what))
        self._at += length

    def _dollar(self) -> None:
        what = "a command substitution" if self.text.startswith("$(", self._at) else "a variable"
        self.operators.append(Operator(self._at, self._at + 2, what))
        self._add("$", 1)

    def _single(self) -> None:
        end = self.text.find("'", self._at + 1)
        if end < 0:
            self.broken = "a quote does not end"
            return
        self._add(self.text[self._at + 1 : end], end + 1 - self._at)

    def _double(self) -> None:
        self._add("", 1)
        while self._at < len(self.text):
            char = self.text[self._at]
            if char == '"':
                self._at += 1
                return
            if char == "\\" and self.text[self._at + 1 : self._at + 2] in tuple('$`"\\'):
                self._add(self.text[self._at + 1], 2)
            elif char == "`" or (char == "$" and re.match(r"[\w({]", self.text[self._at + 1 :])):
                what = "a variable" if char == "$" and self.text[self._at + 1] != "(" else "a command substitution"
                self.operators.append(Operator(self._at, self._at + 1, what))
                self._add(char, 1)
            else:
                self._add(char, 1)
        self.broken = "a quote does not end"

    def _escape(self) -> None:
        following = self.text[self._at + 1 : self._at + 2]
        if following in ("", "\n"):
            self.broken = "it ends in a backslash"
            return
        self._add(following, 2)
