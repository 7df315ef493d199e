"""What a setting may be: kinds of values, each of which checks one and says in words what it takes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.errors import SprigError
from agent.files import parse_size
from agent.text import display
from agent.text.nearest import nearest

if TYPE_CHECKING:
    from agent.approval.policy import Rule
    from agent.tools.mcp.config import ServerConfig

Where = tuple[str | int, ...]
_SHOWN = 60  # characters of a value in a message
_MOST_TEXT = 200_000


class SettingsError(SprigError):
    """The settings cannot be used. ``line`` is the one to look at, counted from 1, where the error has one."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


class WrongSetting(SettingsError):
    """A value that cannot be. ``where`` is its path from the top of the file: keys, and indices of arrays."""

    def __init__(self, where: Where, message: str) -> None:
        super().__init__(message)
        self.where = where


class Kind:
    """Checks a value as it stands in the file."""

    def read(self, value: Any, where: Where) -> Any:
        """The value as the program uses it. Raises WrongSetting."""
        raise NotImplementedError

    def write(self, value: Any) -> Any:
        """The same value as the file has it."""
        return plain(value)


def plain(value: Any) -> Any:
    """The value in lists and dicts, as tomllib gives it; what is None in a mapping is left out."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items() if v is not None}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def name(where: Where) -> str:
    """What a person calls it: ``sampling.temperature``. Indices are left out; the line of the message tells them."""
    return display(".".join(key for key in where if isinstance(key, str)))


def check(right: bool, where: Where, value: Any, takes: str) -> None:
    """Raise WrongSetting unless the value is right: what it is, and what it should be."""
    if not right:
        raise WrongSetting(where, f"{name(where)} is {_shown(value)}; it {takes}")


def unknown(where: Where, hint: str) -> WrongSetting:
    """The error of a key that there is not."""
    return WrongSetting(where, f"{name(where)} is unknown; {hint}")


def hint(word: str, known: Sequence[str]) -> str:
    """What was probably meant, else everything that there is."""
    meant = nearest(word, known)
    return f"did you mean {meant}?" if meant else f"there are {', '.join(known)}"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "an array"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else str(value)
    return display(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


class SwitchKind(Kind):
    """true or false."""

    def read(self, value: Any, where: Where) -> bool:
        check(isinstance(value, bool), where, value, "is true or false")
        return bool(value)


@dataclass(frozen=True, slots=True)
class NumberKind(Kind):
    """A number from ``least`` to ``most``; ``word`` stands for None."""

    least: float
    most: float
    whole: bool = False
    word: str | None = None

    def read(self, value: Any, where: Where) -> float | int | None:
        if self.word is not None and value == self.word:
            return None
        right = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        what = "goes" if right else "is a whole number" if self.whole else "is a number"
        span = f"{self.least:,} to {self.most:,}".replace(",", " ")
        also = f', or is "{self.word}"' if self.word is not None else ""
        inside = right and math.isfinite(value) and self.least <= value <= self.most
        check(inside, where, value, f"{what} from {span}{also}")
        return int(value) if self.whole else float(value)

    def write(self, value: float | int | None) -> float | int | str | None:
        return self.word if value is None else value


class SizeKind(Kind):
    """A number of bytes, as a text like "1.5 GB"; "auto" stands for None."""

    def read(self, value: Any, where: Where) -> int | None:
        if value == "auto":
            return None
        try:
            return parse_size(value)
        except (ValueError, AttributeError):
            raise WrongSetting(where, f'{name(where)} is {_shown(value)}; it is a size like "1.5 GB", or is "auto"') from None

    def write(self, value: int | None) -> str:
        return "auto" if value is None else f"{value} bytes"


@dataclass(frozen=True, slots=True)
class WordKind(Kind):
    """One of a few words; one more, ``word``, stands for None."""

    words: tuple[str, ...]
    word: str | None = None

    def read(self, value: Any, where: Where) -> str | None:
        *others, last = (f'"{word}"' for word in (*self.words, self.word) if word is not None)
        check(value in self.words or value == self.word, where, value, f"is {', '.join(others)} or {last}")
        return None if value == self.word else str(value)

    def write(self, value: str | None) -> str | None:
        return self.word if value is None else value


@dataclass(frozen=True, slots=True)
class NameKind(Kind):
    """One of many names of ``what``, which are looked up only when it is not among the ``usual`` ones."""

    what: str
    usual: tuple[str, ...]
    names: Callable[[], Sequence[str]]

    def read(self, value: Any, where: Where) -> str:
        check(isinstance(value, str), where, value, f"is the name of {self.what}")
        if value not in self.usual and value not in (names := self.names()):
            meant = nearest(value, names)
            other = f'did you mean "{meant}"?' if meant else f"there are {', '.join(names)}"
            raise WrongSetting(where, f"{name(where)}: {self.what} {_shown(value)} does not exist; {other}")
        return str(value)


@dataclass(frozen=True, slots=True)
class TextKind(Kind):
    """A text. One line unless ``lines``; ``folder`` makes it a place that is the same wherever the program is started."""

    lines: bool = False
    folder: bool = False

    def read(self, value: Any, where: Where) -> str:
        check(isinstance(value, str), where, value, "is a text in quotes")
        refused = set("\0") if self.lines else set("\0\n\r")
        check(refused.isdisjoint(value), where, value, "holds no NUL character" if self.lines else "is one line")
        check(not any("\ud800" <= char <= "\udfff" for char in value), where, value, "is Unicode text")
        if len(value) > _MOST_TEXT:
            raise WrongSetting(where, f"{name(where)} has {len(value)} characters; {_MOST_TEXT} are the most")
        if self.folder and value:
            check(value.startswith(("/", "~")), where, value, 'is a folder that begins with / or ~, or ""')
        return str(value)


@dataclass(frozen=True, slots=True)
class ListKind(Kind):
    """An array whose members are all of one kind; with ``once``, none counts twice. ``word`` stands for None."""

    of: Kind
    once: bool = False
    word: str | None = None

    def read(self, value: Any, where: Where) -> tuple[Any, ...] | None:
        if self.word is not None and value == self.word:
            return None
        also = f', or is "{self.word}"' if self.word is not None else ""
        check(isinstance(value, list), where, value, f'is an array of texts: ["one", "two"]{also}')
        found = [self.of.read(item, (*where, i)) for i, item in enumerate(value)]
        return tuple(dict.fromkeys(found) if self.once else found)

    def write(self, value: Any) -> Any:
        return self.word if value is None else plain(value)


@dataclass(frozen=True, slots=True)
class PairsKind(Kind):
    """A table of texts under names that the person chooses."""

    of: Kind

    def read(self, value: Any, where: Where) -> dict[str, Any]:
        check(isinstance(value, dict), where, value, 'is a table of texts: { NAME = "value" }')
        return {key: self.of.read(item, (*where, key)) for key, item in value.items()}


# MCP servers and approval rules: the shape is checked here, the rest by those they are for.
_LINES = TextKind(lines=True)
_SERVER: dict[str, Kind] = {
    "command": TextKind(), "args": ListKind(_LINES), "env": PairsKind(_LINES), "cwd": TextKind(), "url": TextKind(),
    "headers": PairsKind(_LINES), "timeout": NumberKind(0.001, 100_000), "connect_timeout": NumberKind(0.001, 100_000),
    "allow": ListKind(TextKind()), "deny": ListKind(TextKind()),
}  # fmt: skip
_RULE: dict[str, Kind] = {
    "action": WordKind(("allow", "ask", "deny")), "tool": TextKind(), "argument": TextKind(), "pattern": _LINES,
    "exact": SwitchKind(), "even-after-untrusted": SwitchKind(),
}  # fmt: skip


class ServersKind(Kind):
    """The tables ``[mcp.NAME]``, each a server."""

    def read(self, value: Any, where: Where) -> tuple[ServerConfig, ...]:
        how = "is a table: write each server below a line with [mcp.NAME]"
        check(isinstance(value, dict), where, value, how)
        return tuple(_server(title, _fields(inner, (*where, title), _SERVER, how), where) for title, inner in value.items())


def _server(title: str, found: dict[str, Any], where: Where) -> ServerConfig:
    from agent.tools.mcp.config import MCPError, ServerConfig

    arguments = found.pop("args", ())
    if arguments and "command" not in found:
        raise WrongSetting((*where, title, "args"), f"{name((*where, title))} has args and no command that they are for")
    if "command" in found:
        found["command"] = (found["command"], *arguments)
    try:
        return ServerConfig(title, **found)
    except MCPError as e:
        raise WrongSetting((*where, title), str(e)) from None


class RulesKind(Kind):
    """The tables ``[[rules]]``, each an approval rule."""

    def read(self, value: Any, where: Where) -> tuple[Rule, ...]:
        from agent.approval.policy import PolicyError, Rule

        how = "is a list: write each rule below a line with [[rules]]"
        check(isinstance(value, list), where, value, how)
        found = []
        for i, inner in enumerate(value):
            try:
                found.append(Rule.from_dict(_fields(inner, (*where, i), _RULE, how)))
            except PolicyError as e:
                raise WrongSetting((*where, i), str(e)) from None
        return tuple(found)


def _fields(table: Any, where: Where, kinds: Mapping[str, Kind], how: str) -> dict[str, Any]:
    """The values of a table whose keys are all known."""
    check(isinstance(table, dict), where, table, how)
    for key in table:
        if key not in kinds:
            raise unknown((*where, key), hint(key, tuple(kinds)))
    return {key: kinds[key].read(value, (*where, key)) for key, value in table.items()}
