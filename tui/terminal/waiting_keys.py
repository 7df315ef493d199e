"""Keys that come before there is anything on the screen to take them: they wait, and then go where they were meant to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from weakref import WeakSet

from textual import events
from textual._parser import ParseError
from textual._xterm_parser import XTermParser
from textual.screen import Screen


class WaitingKeys:
    """Holds keys and pastes until the screen on top has been painted, and with that has its focus."""

    def __init__(self) -> None:
        self._held: list[events.Event] = []
        self._painted: WeakSet[Screen[object]] = WeakSet()

    def must_wait(self, screen: Screen[object]) -> bool:
        """Whether a key that comes now would be lost, or overtake another."""
        return bool(self._held) or (screen.focused is None and screen not in self._painted)

    def hold(self, *keys: events.Event) -> bool:
        """Let them wait. Returns whether they are the first: then somebody must ``release`` them."""
        first = not self._held
        self._held += keys
        return first and bool(keys)

    def release(self, screen: Screen[object]) -> list[events.Event]:
        """``screen`` is painted now. Returns what has waited for it."""
        self._painted.add(screen)
        held, self._held = self._held, []
        return held


def keys_of(text: str) -> Iterator[events.Event]:
    """What a terminal would tell of keys that were typed: of ``é`` a key, of a carriage return Enter."""
    parser = XTermParser()
    yield from (event for event in parser.feed(text) if isinstance(event, events.Key | events.Paste))
    with contextlib.suppress(ParseError, EOFError):
        yield from (event for event in parser.feed("") if isinstance(event, events.Key | events.Paste))
