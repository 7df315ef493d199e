"""How much of a server's message is read: bytes are counted, and so are the values in its JSON before any of them is made.

A value costs Python a hundred times what it costs a server to write, so a message of 16 MB could take gigabytes.
"""

from __future__ import annotations

import itertools
import re

MESSAGE_BYTES = 16_000_000
VALUES = 100_000  # members of objects and arrays in one message
# A text, of which the inside does not count, or what stands before a member.
_PIECE = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|([,{\[])', re.DOTALL)
TOO_LARGE = f"of more than {MESSAGE_BYTES // 1_000_000} MB"
TOO_MANY = f"of more than {VALUES:,} values"


def values(line: bytes) -> int:
    """About as many members as the JSON on this line holds, not far beyond VALUES; commas within its texts do not count."""
    count = line.count(b",") + line.count(b"{") + line.count(b"[")
    if count <= VALUES:
        return count
    found = (1 for piece in _PIECE.finditer(line) if piece.lastindex)
    return sum(itertools.islice(found, VALUES + 1))


class Measure:
    """Measures a body that comes in pieces: one JSON value on any number of lines, or a stream of events, each a message."""

    def __init__(self, *, events: bool) -> None:
        self._events = events
        self._parts: list[bytes] = []
        self._size = self._values = 0

    def feed(self, data: bytes) -> str:
        """More of it. In words what is wrong with the message; empty while nothing is."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._take(line)
            if wrong := self.end():
                return wrong
        self._take(rest)
        return TOO_LARGE if self._size > MESSAGE_BYTES else ""

    def end(self) -> str:
        """A line is over, and with the last one the body. In words what is wrong, as ``feed``."""
        line, self._parts = b"".join(self._parts), []
        self._values += values(line)
        wrong = TOO_LARGE if self._size > MESSAGE_BYTES else TOO_MANY if self._values > VALUES else ""
        if self._events and not line.strip():  # a message is over
            self._size = self._values = 0
        return wrong

    def _take(self, piece: bytes) -> None:
        self._parts.append(piece)
        self._size += len(piece)
