"""A plan: which ways a model is made small in, all to the same bytes, so that they can be compared. It is a small TOML file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit

from agent.errors import SprigError
from agent.files import parse_size
from agent.text import display
from agent.text.duration import parse_duration
from pipeline.steps.options import CommandOptions, PlanError, PlanReader, arguments, known_key, read_plan_file

WHOLE = "whole"  # the candidate of which nothing is cut; every other must beat it
COMMANDS = ("prune", "distill", "calibrate", "quantize", "evaluate")
_TEXTS = ("model", "base", "revision")
_BUDGETS = ("size", "bpw", "device")
_TOP = (*_TEXTS, *_BUDGETS, "data", "time", "threads", "candidate", "calibrate", "quantize", "evaluate")
# What a stage says itself, what does not change a result, and a token, which would come to lie in a file that is handed on.
_OWN = {"out", "json", "verbose", "token", "revision", "base", "offline", "threads", "resume", "memory", "dry_run"}
_RESERVED = {
    "prune": {"statistics", "no_check"},
    "distill": {"minutes", "time"},  # the same plan gives the same bytes; a number of tokens does, a time does not
    "calibrate": {"statistics", "merge", "head"},
    "quantize": {"recipe", "size", "bpw", "device", "statistics", "imatrix", "sensitivity", "lora", "stream", "pure", "gate"},
    "evaluate": {"reference", "report"},
}
_SPARSE = ("sparsity", "pattern", "method")
_NAME = re.compile(r"[a-z0-9][a-z0-9+_-]{0,39}")

Options = Mapping[str, Any]  # of one command, by name


@dataclass(frozen=True, slots=True)
class WayDown:
    """One way to the size.

    Attributes:
        name: of the way.
        prune, distill: options of these commands; None where that is not done.
        why: why it is tried, for a person.
    """

    name: str
    prune: Options | None = None
    distill: Options | None = None
    why: str = ""

    @property
    def cuts_vocabulary(self) -> bool:
        return any(name in (self.prune or {}) for name in ("vocab", "vocab_size"))


@dataclass(frozen=True, slots=True)
class CompressPlan:
    """What is to be done.

    Attributes:
        model: as every command takes it; ``base`` and ``revision`` say more about it.
        size, bpw, device: one of them: bytes of the file at most, bits for each weight of the model, or what it must run on.
        data: files of text, or of conversations (JSONL), that are like what the model will read.
        time: seconds that all of it may take; None leaves out what only a longer time would make good.
        threads: of every stage; by default every core.
        ways: the candidates; None leaves them to Sprig.
        calibrate, quantize, evaluate: further options of these commands, for all candidates.
        folder: relative paths are taken from there.
        where: the plan's file, for messages.
    """

    model: str
    size: int | None = None
    bpw: float | None = None
    device: str | None = None
    base: str | None = None
    revision: str | None = None
    data: tuple[Path, ...] = ()
    time: float | None = None
    threads: int | None = None
    ways: tuple[WayDown, ...] | None = None
    calibrate: Options = field(default_factory=dict)
    quantize: Options = field(default_factory=dict)
    evaluate: Options = field(default_factory=dict)
    folder: Path = Path()
    where: str = "the plan"

    def __post_init__(self) -> None:
        """Raises PlanError if there is no budget, or more than one."""
        said = [name for name in _BUDGETS if getattr(self, name) is not None]
        if len(said) != 1:
            wrong = f"{' and '.join(said)} are two budgets; give one" if said else "it needs a budget: size, bpw or device"
            raise PlanError(f"{self.where}: {wrong}")

    @property
    def source(self) -> dict[str, str]:
        """What says which model it is, beside its name."""
        return {name: value for name in ("base", "revision") if (value := getattr(self, name)) is not None}


def read_time(text: str) -> float:
    """Seconds of a duration. Raises SprigError."""
    try:
        return parse_duration(text)
    except ValueError as e:
        raise SprigError(str(e)) from None


def read_compress_plan(path: Path, commands: Mapping[str, CommandOptions]) -> CompressPlan:
    """Read a plan.

    Args:
        commands: command -> its options.

    Raises:
        PlanError: the file cannot be read, or says what no command knows; with the nearest name.
    """
    return _Reader(path, commands).read(read_plan_file(path))


class _Reader(PlanReader):
    def __init__(self, path: Path, commands: Mapping[str, CommandOptions]) -> None:
        super().__init__(path)
        self.known = {
            name: {k: v for k, v in options.items() if k not in _OWN | _RESERVED[name]} for name, options in commands.items()
        }

    def read(self, told: Options) -> CompressPlan:
        values = {known_key(key, dict.fromkeys(_TOP), str(self.path)): value for key, value in told.items()}
        texts = {name: self._text(values[name], name) for name in _TEXTS if name in values}
        if "model" not in texts:
            raise self.wrong("it needs a model, as a text")
        return CompressPlan(
            model=self.near(texts.pop("model")),
            size=self._size(values.get("size")),
            bpw=self._number(values.get("bpw"), "bpw", 32),
            device=self._text(values["device"], "device") if "device" in values else None,
            data=tuple(self.folder / one for one in self._list(values.get("data", []), "data")),
            time=self._time(values.get("time")),
            threads=self._threads(values.get("threads")),
            ways=self._ways(values["candidate"]) if "candidate" in values else None,
            folder=self.folder,
            where=str(self.path),
            calibrate=self._options(values.get("calibrate", {}), "calibrate", "[calibrate]"),
            quantize=self._options(values.get("quantize", {}), "quantize", "[quantize]"),
            evaluate=self._options(values.get("evaluate", {}), "evaluate", "[evaluate]"),
            base=texts.get("base"),
            revision=texts.get("revision"),
        )

    def _ways(self, tables: Any) -> tuple[WayDown, ...]:
        ways: list[WayDown] = []
        for place, table in self.tables(tables, "candidate"):
            values = self.options(table, dict.fromkeys(("name", "why", "prune", "distill")), place)
            name = self._text(values.get("name"), f"{place}: name")
            if not _NAME.fullmatch(name):
                raise self.wrong(f"{place}: the name {name!r} is no short word of small letters, digits, '-', '+' and '_'")
            made = {k: self._options(values[k], k, f"{place}, {k}") for k in ("prune", "distill") if k in values}
            if made.get("prune") == {}:
                raise self.wrong(f"{place}: prune says nothing to cut; leave it out")
            way = WayDown(name, why=self._text(values.get("why", "."), f"{place}: why").strip("."), **made)
            if not way.prune and way.distill is None and name != WHOLE:
                raise self.wrong(f"{place}: {name} cuts nothing and learns nothing; only {WHOLE} is so")
            if name in [one.name for one in ways]:
                raise self.wrong(f"two candidates are called {name}; give one another name")
            ways.append(way)
        return tuple(ways)

    def _options(self, table: Any, command: str, place: str) -> dict[str, Any]:
        values = self.options(table, {**self.known[command], **dict.fromkeys(_SPARSE)}, place)
        if sparse := next((key for key in values if key in _SPARSE), None):
            why = "is never part of a plan: ggml has no sparse kernel, so that it loses and saves nothing"
            raise PlanError(f"{self.at(place)}: {sparse} {why}")
        arguments(values, self.known[command], self.folder, self.at(place))  # which says what is of the wrong kind
        return {name: self._whole_paths(value, self.known[command][name].path) for name, value in values.items()}

    def _whole_paths(self, value: Any, path: bool) -> Any:
        if not path:
            return value
        return [str(self.folder / one) for one in value] if isinstance(value, list) else str(self.folder / str(value))

    def _text(self, value: Any, what: str) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(f"{what} is a text")
        return value

    def _list(self, value: Any, what: str) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
            raise self.wrong(f"{what} is a list of files, like {what} = ['letters.txt']")
        return value

    def _size(self, value: Any) -> int | None:
        try:
            return value if value is None or (type(value) is int and value > 0) else parse_size(str(value))
        except ValueError:
            raise self.wrong(f"size {display(str(value))!r} is no size; '300MB' and '1.5GB' are") from None

    def _number(self, value: Any, what: str, most: float) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most or math.isnan(value):
            raise self.wrong(f"{what} is a number above 0 and at most {most:g}, not {display(str(value))}")
        return float(value)

    def _threads(self, value: Any) -> int | None:
        if value is not None and (type(value) is not int or value < 1):
            raise self.wrong(f"threads is a whole number of at least 1, not {display(str(value))}")
        return value

    def _time(self, value: Any) -> float | None:
        try:
            return None if value is None else read_time(str(value))
        except SprigError as e:
            raise self.wrong(str(e)) from None


def plan_text(plan: CompressPlan, notes: tuple[str, ...], folder: Path) -> str:
    """The plan as TOML, which ``read_compress_plan`` reads.

    Args:
        notes: what a person should know, as comments.
        folder: where it will lie; files below it are named from there.
    """
    doc = tomlkit.document()
    for note in ("A plan of sprig compress; docs/compression.md says what may stand here.", *notes):
        doc.add(tomlkit.comment(display(note)))
    near = folder.absolute()

    def told(path: Path | str) -> str:
        whole = Path(path).absolute()
        return str(whole.relative_to(near)) if whole.is_relative_to(near) else str(whole)

    doc.add("model", tomlkit.item(told(plan.model) if Path(plan.model).exists() else plan.model))
    for name in ("base", "revision", "size", "bpw", "device", "threads"):
        if (value := getattr(plan, name)) is not None:
            doc.add(name, tomlkit.item(value))
    if plan.data:
        doc.add("data", tomlkit.item([told(path) for path in plan.data]))
    if plan.time is not None:
        doc.add("time", tomlkit.item(f"{plan.time:.3f}".rstrip("0").rstrip(".") + "s"))
    for name in ("calibrate", "quantize", "evaluate"):
        if options := getattr(plan, name):
            doc.add(name, tomlkit.item(dict(options)))
    tables = tomlkit.aot()
    for way in plan.ways or ():
        table = tomlkit.table()
        for name in ("name", "why"):
            if value := getattr(way, name):
                table.add(name, value)
        for name in ("prune", "distill"):
            if (value := getattr(way, name)) is not None:
                inline = tomlkit.inline_table()
                inline.update(dict(value))
                table.add(name, inline)
        tables.append(table)
    if plan.ways:
        doc.add("candidate", tables)
    return tomlkit.dumps(doc)
