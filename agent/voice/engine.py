"""Listening: what a voice engine must be able to do, and how one is found.

Sprig brings no engine. A package offers one as an entry point of the group "sprig.voice" that names a function without
arguments; it returns a ``Voice``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.errors import SprigError
from agent.text import display

GROUP = "sprig.voice"
WHY_NOT = "no voice engine is installed yet: install a package that offers one to Sprig (entry point group sprig.voice)"


class VoiceError(SprigError):
    """A voice engine is there, but cannot be used."""


@dataclass(frozen=True, slots=True)
class Partial:
    """What the engine has understood so far since the last Final; the next one takes its place."""

    text: str


@dataclass(frozen=True, slots=True)
class Final:
    """Words that do not change any more."""

    text: str


@dataclass(frozen=True, slots=True)
class Level:
    """How loud it is, from 0 to 1."""

    level: float


@dataclass(frozen=True, slots=True)
class Trouble:
    """The engine has stopped listening, and why, in one line: no microphone, no permission, a lost device."""

    text: str


VoiceEvent = Partial | Final | Level | Trouble


class VoiceInput(Protocol):
    """Turns speech into text."""

    def start(self, tell: Callable[[VoiceEvent], None]) -> None:
        """Listen, and return once that has begun. It may take a while, and is called in a thread of its own.

        Args:
            tell: gets what is heard, from any thread, until ``stop`` and the last Final after it.

        Raises SprigError if it cannot listen.
        """

    def stop(self) -> None:
        """End listening, and let the microphone go. What was said before may still come as a Final. Never raises."""


@dataclass(frozen=True, slots=True)
class Voice:
    """An engine and its name."""

    name: str
    input: VoiceInput


def find_voice() -> Voice | None:
    """The first installed engine that works, in the order of the entry points' names; None if none is installed.

    Raises VoiceError if there are some, and none of them works. May take long: it reads what is installed, and imports.
    """
    from importlib.metadata import entry_points

    faults = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            voice = point.load()()
        except Exception as e:  # anything may be wrong in a package that somebody else made
            faults.append(f"{point.name} ({why_of(e)})")
            continue
        if isinstance(voice, Voice):
            return voice
        faults.append(f"{point.name} (it gave no voice)")
    if faults:
        raise VoiceError(display(f"no voice engine works: {', '.join(faults)}; update or remove its package"))
    return None


def one_line(text: str) -> str:
    """A text of an engine as one line that is safe to show."""
    return display(" ".join(text.split()))


def why_of(error: Exception) -> str:
    """What went wrong in an engine, in one line that is safe to show."""
    if isinstance(error, SprigError):
        return one_line(str(error))
    return one_line(f"the voice engine failed ({type(error).__name__}: {error})")
