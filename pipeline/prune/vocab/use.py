"""Counts the tokens of texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_AT_ONCE = 50_000  # characters; some tokenizers take the whole of a text for one word

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class TokenGrowth:
    """How many tokens a text has before and after the cut."""

    name: str
    before: int
    after: int

    @property
    def percent(self) -> float:
        return 100.0 * (self.after / self.before - 1.0) if self.before else 0.0


def count(text: str, encode: Encode) -> Counter[int]:
    """How often each token is used in a text."""
    found: Counter[int] = Counter()
    for part in _parts(text):
        found.update(encode(part))
    return found


def _parts(text: str) -> Iterator[str]:
    """The text in pieces that end where a line does, if there are lines."""
    start = 0
    while start < len(text):
        stop = start + _AT_ONCE
        if stop < len(text):
            stop = text.rfind("\n", start, stop) + 1 or stop
        yield text[start:stop]
        start = stop
