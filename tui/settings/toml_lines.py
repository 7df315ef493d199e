"""On which line of a TOML text each key and each member of an array begins. tomllib reads values, and forgets where they were.

The text must be one that tomllib has read without complaint: nothing is checked here. Grammar: https://toml.io/en/v1.0.0
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field

Where = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN = re.compile(r"[^,\]}#\n]*")
# Delimiter -> what comes after it. Up to two quotes may stand before the three that close a string of many lines.
_STRINGS = {
    '"""': re.compile(r'(?:[^"\\]+|\\.|"(?!""))*+"{3,5}', re.DOTALL),
    "'''": re.compile(r"(?:[^']+|'(?!''))*+'{3,5}"),
    '"': re.compile(r'(?:[^"\\\n]+|\\.)*+"'),
    "'": re.compile(r"[^'\n]*'"),
}


def lines(text: str) -> Mapping[Where, int]:
    """Way from the top (keys, and places in arrays) -> line, counted from 1, for everything in the text."""
    finder = _Finder(text)
    finder.document()
    return finder.found


def line_of(text: str, where: Where) -> int:
    """The line of ``where``, or of the nearest thing around it that has one."""
    found = lines(text)
    while where and where not in found:
        where = where[:-1]
    return found.get(where, 1)


def last_line(text: str) -> int:
    """The line of the last key or header of a text that breaks off in the middle, but is without errors until there."""
    finder = _Finder(text)
    with contextlib.suppress(IndexError, AssertionError):
        finder.document()
    return finder.latest


@dataclass(slots=True)
class _Finder:
    text: str
    at: int = 0
    found: dict[Where, int] = field(default_factory=dict)
    latest: int = 1
    _members: dict[Where, int] = field(default_factory=dict)  # of arrays of tables, as far as they are read
    _counted: tuple[int, int] = (0, 1)  # offset, and the line it is on: each line break is counted once

    def document(self) -> None:
        table: Where = ()
        self._skip(_BLANK)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)

    def _header(self) -> Where:
        line, many = self._line(), self.text.startswith("[[", self.at)
        self.latest = line
        self.at += 2 if many else 1
        key = self._key()
        self.at += 2 if many else 1
        where: Where = ()
        for i, part in enumerate(key):
            where = (*where, part)
            self.found.setdefault(where, line)
            if many and i == len(key) - 1:
                self._members[where] = self._members.get(where, 0) + 1
            if where in self._members:
                where = (*where, self._members[where] - 1)
                self.found.setdefault(where, line)
        return where

    def _pair(self, table: Where) -> None:
        line, where = self._line(), table
        self.latest = line
        for part in self._key():
            where = (*where, part)
            self.found.setdefault(where, line)
        self.at += 1  # =
        self._skip(_SPACE)
        self._value(where)

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._skip(_SPACE)
            if self.text[self.at] in "\"'":
                start = self.at
                self._string()
                parts.append(str(tomllib.loads(f"k = {self.text[start : self.at]}")["k"]))
            else:
                parts.append(self._skip(_BARE_KEY))
            self._skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return parts
            self.at += 1

    def _value(self, where: Where) -> None:
        first = self.text[self.at]
        if first == "[":
            self._array(where)
        elif first == "{":
            self._inline_table(where)
        elif first in "\"'":
            self._string()
        else:
            self._skip(_PLAIN)

    def _array(self, where: Where) -> None:
        self.at += 1
        index = 0
        while True:
            self._skip(_BLANK)
            if self.text[self.at] == "]":
                break
            member = (*where, index)
            self.found[member] = self._line()
            self._value(member)
            self._skip(_BLANK)
            if self.text[self.at] == ",":
                self.at += 1
            index += 1
        self.at += 1

    def _inline_table(self, where: Where) -> None:
        self.at += 1
        while True:
            self._skip(_SPACE)
            if self.text[self.at] in ",}":
                self.at += 1
                if self.text[self.at - 1] == "}":
                    return
            else:
                self._pair(where)

    def _string(self) -> None:
        quote = self.text[self.at]
        delimiter = quote * 3 if self.text.startswith(quote * 3, self.at) else quote
        self.at += len(delimiter)
        self._skip(_STRINGS[delimiter])

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        return match[0]

    def _line(self) -> int:
        offset, line = self._counted
        self._counted = (self.at, line + self.text.count("\n", offset, self.at))
        return self._counted[1]
