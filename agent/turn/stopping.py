"""Texts that end an answer: found in its words as they come, however they are cut, and cut off the tokens that were kept."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


class StopFinder:
    """Finds the first of some texts in words that come piece by piece.

    Found is what is complete first; of those that are so at the same character, the longest. That does not depend on how the
    words are cut.

    Attributes:
        found: the text that was found; empty until then.
        held: words that may be the beginning of one, and are not given out yet.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stops)
        self.found = self.held = ""

    def feed(self, words: str) -> str:
        """More words; returns those that are surely none of a stop. After one was found, there are none."""
        if self.found or not self._stops:
            return "" if self.found else words
        self.held += words
        ends = [(at + len(stop), -len(stop), stop) for stop in self._stops if (at := self.held.find(stop)) >= 0]
        if ends:
            end, _, self.found = min(ends)
            sure, self.held = self.held[: end - len(self.found)], ""
            return sure
        longest = min(len(self.held), max(map(len, self._stops)) - 1)
        keep = next((n for n in range(longest, 0, -1) if self._may_begin(self.held[-n:])), 0)
        sure, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        return sure

    def _may_begin(self, words: str) -> bool:
        return any(stop.startswith(words) for stop in self._stops)

    def flush(self) -> str:
        """Nothing follows these words: what was held back is none of a stop."""
        words, self.held = self.held, ""
        return words


def cut(texts: Sequence[str], words: str, stop: str, start: int) -> tuple[int, str]:
    """Where an answer's tokens are cut when a stop was found: how many stay, and the text that stays of the next one.

    Args:
        texts: of the tokens; thoughts, calls and marks among them.
        words: between the last of these and the stop.
        stop: that was found.
        start: characters of ``texts`` in front of the words, at least.
    """
    whole = "".join(texts)
    # White space in front of the words may have been left out, or be a line's end that stands for more of it.
    ways = (
        whole.find(lead + stop, start) + len(lead) for lead in (words, words.lstrip(), "") if whole.find(lead + stop, start) >= 0
    )
    at = next(ways, len(whole))
    ends = list(accumulate(map(len, texts)))
    count = bisect_right(ends, at)
    return count, whole[ends[count - 1] if count else 0 : at]


class Stopped(threading.Event):
    """Set when the run is cancelled, or when the answer has met a stop: either ends the computation."""

    def __init__(self, cancelled: threading.Event | None = None) -> None:
        super().__init__()
        self._cancelled = cancelled if cancelled is not None else threading.Event()

    def is_set(self) -> bool:
        return super().is_set() or self._cancelled.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        # Who waits is who would find a stop: only a cancellation can come meanwhile.
        return self.is_set() or self._cancelled.wait(timeout)
