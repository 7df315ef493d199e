"""The options of a command, as a plan names them, and the arguments that they become."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agent.errors import SprigError
from agent.text import display
from agent.text.nearest import nearest


class PlanError(SprigError):
    """A plan says what cannot be done; the message names the file and the place in it."""


@dataclass(frozen=True, slots=True)
class CommandOption:
    """One option of a command of `sprig`.

    Attributes:
        flag: as it is written on the command line, "--tensor-type".
        takes: nothing (it is on or off), a value, or values, for it may be repeated.
        path: whether a value is the path of a file.
    """

    flag: str
    takes: Literal["nothing", "value", "values"]
    path: bool = False


CommandOptions = Mapping[str, CommandOption]  # by name, words joined by "_"


def read_plan_file(path: Path) -> dict[str, Any]:
    """What the TOML file of a plan says. PlanError if it cannot be read."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as e:
        raise PlanError(f"cannot read the plan {path}: {e.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise PlanError(f"{path} is no TOML: {display(str(e))}") from None


class PlanReader:
    """What the readers of plans have in common."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path.absolute().parent

    def at(self, place: str) -> str:
        """A table of the plan, for messages."""
        return f"{self.path}, {place}"

    def wrong(self, what: str) -> PlanError:
        return PlanError(f"{self.path}: {display(what)}")

    def near(self, model: str) -> str:
        """A file or folder beside the plan by its whole path, for a command may run elsewhere; what is none as it is."""
        near = self.folder / model
        return str(near) if near.exists() else model

    def tables(self, tables: Any, key: str) -> Iterator[tuple[str, Any]]:
        """Each of [[key]], with its place."""
        if not isinstance(tables, list):
            raise self.wrong(f"{key} is written [[{key}]], for there may be several")
        yield from ((f"[[{key}]] {i}", table) for i, table in enumerate(tables, 1))

    def options(self, table: Any, known: Mapping[str, Any], place: str) -> dict[str, Any]:
        """The values of a table, by names that are known."""
        if not isinstance(table, dict):
            raise self.wrong(f"{place} is no table")
        return {known_key(key, known, self.at(place)): value for key, value in table.items()}


def known_key(key: str, known: Mapping[str, Any], where: str) -> str:
    """The key as it is spelled in ``known``; "-" counts as "_". PlanError, with the nearest key, when it is not there."""
    if (name := key.replace("-", "_")) in known:
        return name
    near = nearest(name, known)
    raise PlanError(f"{where}: there is no key {display(key)!r}" + (f"; did you mean {near}?" if near else ""))


def arguments(values: Mapping[str, Any], options: CommandOptions, folder: Path, where: str) -> list[str]:
    """The command line of these values, in the order of their names.

    Args:
        values: option -> what the plan says; all are in ``options``.
        folder: of the plan; relative paths of files are taken from there.
        where: in which file and table they stand, for an error.

    Raises:
        PlanError: a value is of the wrong kind.
    """
    found: list[str] = []
    for name, value in sorted(values.items()):
        option = options[name]
        if option.takes == "nothing":
            if not isinstance(value, bool):
                raise PlanError(f"{where}: {name} is true or false, not {display(repr(value))}")
            found += [option.flag] if value else []
            continue
        several = value if isinstance(value, list) and option.takes == "values" else [value]
        for one in several:
            if isinstance(one, bool) or not isinstance(one, str | int | float):
                raise PlanError(f"{where}: {name} is a text or a number, not {display(repr(one))}")
            found.append(f"{option.flag}={(folder / str(one)).absolute() if option.path else one}")
    return found
