"""A command that was read: its words, what only a shell could do with it, and the simple commands in it."""

from __future__ import annotations

import re
from dataclasses import dataclass

UNKNOWN = "\0"  # in a shape: text that only a shell would know, any of it or none
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a command.

    Attributes:
        text: without its quotes; expansions stand in it as they were written.
        start, end: where it stands in the command.
        wild: whether it has unquoted wildcards.
        shape: the text with UNKNOWN for each expansion and wildcard.
    """

    text: str
    start: int
    end: int
    wild: bool = False
    shape: str = ""


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
        words: in order, those of all its parts, and the files of its redirections.
        operators: what a shell would act upon; empty for a plain command.
        parts: the words of each simple command, those inside substitutions too. Where shells differ in what they make of a
            line, the parts of either reading.
        files: what redirections name.
        texts: here-documents.
        broken: why no shell can run it, as for a quote that does not end; empty when one can.
    """

    words: tuple[Word, ...] = ()
    operators: tuple[Operator, ...] = ()
    parts: tuple[tuple[Word, ...], ...] = ()
    files: tuple[Word, ...] = ()
    texts: tuple[str, ...] = ()
    broken: str = ""

    @property
    def plain(self) -> bool:
        """Whether it is one program and its arguments, nothing else."""
        return not self.broken and not self.operators and bool(self.words) and not is_assignment(self.words[0])

    @property
    def argv(self) -> tuple[str, ...]:
        return tuple(word.text for word in self.words)


def is_assignment(word: Word) -> bool:
    """Whether a word sets a variable when it stands before a program."""
    return _ASSIGNMENT.match(word.text) is not None


def closing(text: str, at: int, sign: str) -> int:
    """Where a sign stands that no backslash precedes; -1, nowhere."""
    while at < len(text):
        if text[at] == sign:
            return at
        at += 2 if text[at] == "\\" else 1
    return -1
