"""From the talk's thread to the screen: what happens is gathered, and handed over a few times a second."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

FAST = 0.15  # seconds between two deliveries; a person reads no faster, and each one costs layout and painting
SLOW = 0.6  # on a slow line


class Inbox:
    """Any thread puts notes in; the loop's thread gets them in batches, in order, words that follow each other as one."""

    def __init__(self, deliver: Callable[[list[Any]], object], loop: asyncio.AbstractEventLoop, *, every: float = FAST) -> None:
        self.every = every
        self._deliver, self._loop = deliver, loop
        self._lock = threading.Lock()
        self._notes: list[Any] = []
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._asked = False  # whether the loop was told that something is there
        self._closed = False

    def put(self, note: Any) -> None:
        """Add a note, from any thread."""
        from agent.events import Text, Thought

        with self._lock:
            last: Any = self._notes[-1] if self._notes else None
            if isinstance(note, Text | Thought) and type(note) is type(last):
                self._notes[-1] = replace(note, text=last.text + note.text, tokens=last.tokens + note.tokens)
            else:
                self._notes.append(note)
            if self._asked or self._closed:
                return
            self._asked = True
        try:
            self._loop.call_soon_threadsafe(self._schedule)
        except RuntimeError:  # the loop has ended, and with it whoever would read this
            self._closed = True

    def close(self) -> None:
        """Nothing is delivered any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self) -> None:
        wait = self._last + self.every - time.monotonic()
        if wait <= 0:
            self._hand_over()
        else:
            self._timer = self._loop.call_later(wait, self._hand_over)

    def _hand_over(self) -> None:
        with self._lock:
            notes, self._notes, self._asked = self._notes, [], False
        self._last = time.monotonic()
        if notes and not self._closed:
            self._deliver(notes)
