"""What a setting may be: kinds of values, each of which checks one and says in words what it takes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agent.text import display

Where = tuple[str | int, ...]
_SHOWN = 60  # characters of a value in a message
_MOST_TEXT = 200_000


class WrongSetting(Exception):
    """A value that cannot be; ``where`` is its way from the top of the file: keys, and places in arrays."""

    def __init__(self, where: Where, message: str) -> None:
        super().__init__(message)
        self.where = where


class Kind(Protocol):
    """Checks a value as it stands in the file."""

    def read(self, value: Any, where: Where) -> Any:
        """The value as the program uses it. Raises WrongSetting."""

    def write(self, value: Any) -> Any:
        """The same value as the file has it."""


def name(where: Where) -> str:
    """What a person calls it: ``sampling.temperature``; places in arrays are left out, the line tells them."""
    return display(".".join(key for key in where if isinstance(key, str)))


def wrong(where: Where, value: Any, takes: str) -> WrongSetting:
    """The error of a value: what it is, and what it should be."""
    return WrongSetting(where, f"{name(where)} is {_shown(value)}; it {takes}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else str(value)
    return display(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """What was probably meant."""
    import difflib  # only a mistake needs it

    found = difflib.get_close_matches(word.lower(), list(known), 1, 0.6)
    return found[0] if found else None


def one_of(names: Sequence[str]) -> str:
    """``"a", "b" or "c"``."""
    quoted = [f'"{n}"' for n in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


@dataclass(frozen=True, slots=True)
class Switch:
    """true or false."""

    def read(self, value: Any, where: Where) -> bool:
        if not isinstance(value, bool):
            raise wrong(where, value, "is true or false")
        return value

    def write(self, value: bool) -> bool:
        return value


@dataclass(frozen=True, slots=True)
class Number:
    """A number from ``least`` to ``most``; ``word`` stands for None."""

    least: float
    most: float
    whole: bool = False
    word: str | None = None

    def read(self, value: Any, where: Where) -> float | int | None:
        if self.word is not None and value == self.word:
            return None
        right = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        if right and math.isfinite(value) and self.least <= value <= self.most:
            return value if self.whole else float(value)
        span = f"{self.least:,} to {self.most:,}".replace(",", " ")
        also = f', or is "{self.word}"' if self.word is not None else ""
        raise wrong(where, value, f"goes from {span}{also}" if right else f"is a {self._what} from {span}{also}")

    @property
    def _what(self) -> str:
        return "whole number" if self.whole else "number"

    def write(self, value: float | int | None) -> float | int | str | None:
        return self.word if value is None else value


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some words."""

    names: tuple[str, ...]

    def read(self, value: Any, where: Where) -> str:
        if value not in self.names:
            raise wrong(where, value, f"is {one_of(self.names)}")
        return str(value)

    def write(self, value: str) -> str:
        return value


@dataclass(frozen=True, slots=True)
class Known:
    """One of many names, which are looked up only when it is not among the ``usual`` ones."""

    what: str
    usual: tuple[str, ...]
    names: Callable[[], Sequence[str]]

    def read(self, value: Any, where: Where) -> str:
        if not isinstance(value, str):
            raise wrong(where, value, f"is the name of {self.what}")
        if value not in self.usual and value not in (names := self.names()):
            meant = nearest(value, names)
            raise WrongSetting(
                where,
                f"{name(where)}: {self.what} {_shown(value)} does not exist; "
                + (f'did you mean "{meant}"?' if meant else f"there are {', '.join(names)}"),
            )
        return value

    def write(self, value: str) -> str:
        return value


@dataclass(frozen=True, slots=True)
class Text:
    """A text. One line unless ``lines``; ``folder`` makes it a place that is the same wherever the program is started."""

    lines: bool = False
    folder: bool = False

    def read(self, value: Any, where: Where) -> str:
        if not isinstance(value, str):
            raise wrong(where, value, "is a text in quotes")
        if "\0" in value or (not self.lines and ("\n" in value or "\r" in value)):
            raise wrong(where, value, "holds no NUL character" if self.lines else "is one line")
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise wrong(where, value, "is Unicode text")
        if len(value) > _MOST_TEXT:
            raise WrongSetting(where, f"{name(where)} has {len(value)} characters; {_MOST_TEXT} are the most")
        if self.folder and value and not value.startswith(("/", "~")):
            raise wrong(where, value, 'is a folder that begins with / or ~, or ""')
        return value

    def write(self, value: str) -> str:
        return value


@dataclass(frozen=True, slots=True)
class Items:
    """An array whose members are all of one kind; none counts twice."""

    of: Kind

    def read(self, value: Any, where: Where) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise wrong(where, value, 'is an array: ["one", "two"]')
        return tuple(dict.fromkeys(self.of.read(item, (*where, i)) for i, item in enumerate(value)))

    def write(self, value: Any) -> Any:
        return [self.of.write(item) for item in value] if isinstance(value, list | tuple) else value
