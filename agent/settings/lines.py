"""On which line of a TOML text something begins. tomllib does not tell, so it is asked again about beginnings of the text."""

from __future__ import annotations

import tomllib
from bisect import bisect_left
from itertools import product
from typing import Any

from agent.settings.kinds import Where

# What ends a text that was cut off within a value: an open string, then open arrays and inline tables.
_ENDS = [
    quotes + "".join(brackets) for depth in range(4) for brackets in product("]}", repeat=depth) for quotes in ("", '"""', "'''")
]


def line_of(text: str, where: Where) -> int:
    """The line, counted from 1, of ``where`` or of the nearest thing around it that the text, TOML without errors, has."""
    while not _holds(tomllib.loads(text), where):
        where = where[:-1]
    lines = _lines(text)

    def end(line: int) -> int:
        """The last line of the statement that this line is a part of."""
        return next(n for n in range(line, len(lines)) if _parsed(lines[: n + 1]) is not None)

    def holds_so_far(line: int) -> bool:
        return any((found := _parsed([*lines[: line + 1], ending])) is not None and _holds(found, where) for ending in _ENDS)

    counted = range(len(lines))
    first = bisect_left(counted, True, key=lambda line: _holds(_parsed(lines[: end(line) + 1]), where))
    return 1 + bisect_left(counted, True, lo=first, hi=end(first), key=holds_so_far)


def open_line(text: str) -> int:
    """The line on which the value begins that a text without other errors breaks off in."""
    lines = _lines(text)
    return 1 + next(n for n in reversed(range(len(lines))) if _parsed(lines[:n]) is not None)


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").split("\n")


def _holds(inner: Any, where: Where) -> bool:
    try:
        for part in where:
            inner = inner[part]
    except (LookupError, TypeError):
        return False
    return True


def _parsed(lines: list[str]) -> dict[str, Any] | None:
    try:
        return tomllib.loads("\n".join(lines))
    except ValueError:
        return None
