"""PLAN.toml: which files are made of which models, and how they are measured."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pipeline.steps.options import CommandOptions, PlanReader, arguments, known_key, read_plan_file

_WAYS = {
    "recipes": "recipe",
    "sizes": "size",
    "bpw": "bpw",
}  # key of the grid -> option: one of them says what a file's types are
_AXES = {**_WAYS, "encoders": "encoder"}
_TOP = {"model", "run", "quantize", "evaluate", *_AXES}
# What says which model it is; a reference is made with these and none of the others.
_SOURCE = {"base", "revision", "offline", "context_length", "chat_template", "stream", "allow_requantize", "llama_cpp", "threads"}
_REFERENCE = "F32"  # llama.cpp computes fastest with it where a processor lacks instructions for 16 bits
# What the sweep says itself; a token, which would come to lie in the results; and a file that the command changes, whereupon the
# next run would begin anew.
_RESERVED = {
    "quantize": {"out", "json", "verbose", "dry_run", "resume", "lora", "token", "device", "sensitivity"},
    "evaluate": {"json", "verbose", "reference", "report", "token"},
}
# Options that `sprig quantize` refuses beside other encoders, or without a budget (False: with one). Where [quantize] or a model
# names them, they are for the files that they concern.
_OF_ENCODER = {"imatrix": ("ggml",), "statistics": ("gptq", "tune"), "tune_minutes": ("tune",)}
_OF_BUDGET = {"types": True, "pure": False}
Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file that is to be made.

    Attributes:
        name: of the file, without .gguf; no other of the plan has it.
        model: the name of its model in the plan.
        choices: recipe, size, bpw, encoder: what tells it from the others of its model.
        quantize: arguments of `sprig quantize`, the model first.
        reference: arguments of `sprig quantize` that make what it is compared with; or that GGUF or model itself.
    """

    name: str
    model: str
    choices: Mapping[str, str]
    quantize: tuple[str, ...]
    reference: tuple[str, ...] | str


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """All files, and the arguments of `sprig evaluate`; None when nothing is measured."""

    path: Path
    files: tuple[PlannedFile, ...]
    evaluate: tuple[str, ...] | None


def read_plan(path: Path, quantize: CommandOptions, evaluate: CommandOptions) -> SweepPlan:
    """Read a plan.

    Args:
        quantize, evaluate: the options that these commands have.

    Raises:
        PlanError: the file cannot be read, or says what no command knows.
    """
    return _Reader(path, quantize, evaluate).read(read_plan_file(path))


class _Reader(PlanReader):
    def __init__(self, path: Path, quantize: CommandOptions, evaluate: CommandOptions) -> None:
        super().__init__(path)
        self.quantize = {k: v for k, v in quantize.items() if k not in _RESERVED["quantize"]}
        self.evaluate = {k: v for k, v in evaluate.items() if k not in _RESERVED["evaluate"]}
        self.shared: Table = {}
        self.reference = _REFERENCE

    def read(self, data: Table) -> SweepPlan:
        for key in data:
            known_key(key, dict.fromkeys(_TOP), str(self.path))
        self.shared = self.options(data.get("quantize", {}), self.quantize, "[quantize]")
        measured = self._evaluate(data.get("evaluate"))
        models = self._models(data.get("model", []))
        files = (*self._grid(data, models), *self._runs(data.get("run", []), models))
        if not files:
            raise self.wrong("nothing is to be made: it needs a [[model]] with recipes, sizes or bpw, or a [[run]]")
        names: set[str] = set()
        for file in files:
            if file.name.lower() in names:
                raise self.wrong(f"two runs are called {file.name}; give one of them, or its model, a name")
            names.add(file.name.lower())
        return SweepPlan(self.path, files, measured)

    def _evaluate(self, table: Any) -> tuple[str, ...] | None:
        if table is None:
            return None
        values = self.options(table, {**self.evaluate, "reference": None}, "[evaluate]")
        self.reference = str(values.pop("reference", _REFERENCE))
        return tuple(arguments(values, self.evaluate, self.folder, self.at("[evaluate]")))

    def _models(self, tables: Any) -> dict[str, dict[str, Any]]:
        """Name -> what the plan says of it."""
        models: dict[str, dict[str, Any]] = {}
        own = {"model": None, "name": None, "reference": None}
        for place, table in self.tables(tables, "model"):
            values = self.options(table, {**self._but(_AXES.values()), **own}, place)
            name = _file_name(str(values.pop("name", "")) or _short(self._text(values, "model", place)))
            if name in models:
                raise self.wrong(f"two models are called {name}; give one of them a name")
            models[name] = values
        return models

    def _grid(self, data: Table, models: Mapping[str, dict[str, Any]]) -> Iterator[PlannedFile]:
        ways = [{option: value} for key, option in _WAYS.items() for value in self._axis(data, key)]
        encoders = [{"encoder": value} for value in self._axis(data, "encoders")] or [{}]
        if models and not ways and not data.get("run"):
            raise self.wrong("the models need recipes, sizes or bpw, or a [[run]]")
        for (name, model), way, encoder in product(models.items(), ways, encoders):
            yield self._file("", name, model, {**way, **encoder}, "the grid")

    def _runs(self, tables: Any, models: Mapping[str, dict[str, Any]]) -> Iterator[PlannedFile]:
        for place, table in self.tables(tables, "run"):
            values = self.options(table, {**self.quantize, "model": None, "name": None, "reference": None}, place)
            given = str(values.pop("name", ""))
            model = self._text(values, "model", place)
            rest = {key: value for key, value in values.items() if key != "model"}
            name = model if model in models else _file_name(_short(model))
            yield self._file(given, name, models.get(model, {"model": model}), rest, place)

    def _file(self, given: str, model: str, general: Table, own: Table, place: str) -> PlannedFile:
        values = {**_concerning({**self.shared, **general}, own), **own}
        choices = {option: str(values[option]) for option in _AXES.values() if option in values}
        name = _file_name(given) or _file_name("-".join([model, *(f"{v}bpw" if k == "bpw" else v for k, v in choices.items())]))
        reference = str(values.pop("reference", self.reference))
        source = self.near(str(values.pop("model")))
        at = self.at(place)
        compared: tuple[str, ...] | str
        if "/" in reference or reference.endswith(".gguf"):
            compared = self.near(reference)
        elif source.endswith(".gguf") and reference == _REFERENCE and Path(source).is_file():
            compared = source
        else:
            of_source = {k: v for k, v in values.items() if k in _SOURCE}
            compared = (source, *arguments({**of_source, "recipe": reference}, self.quantize, self.folder, at))
        return PlannedFile(name, model, choices, (source, *arguments(values, self.quantize, self.folder, at)), compared)

    def _axis(self, data: Table, key: str) -> list[Any]:
        values = data.get(key, [])
        if not isinstance(values, list) or not all(isinstance(v, str | int | float) and v != "" for v in values):
            raise self.wrong(f"{key} is a list, like {key} = [...], of texts or numbers")
        return values

    def _but(self, names: Any) -> dict[str, Any]:
        return {k: v for k, v in self.quantize.items() if k not in set(names)}

    def _text(self, values: Table, key: str, place: str) -> str:
        if not isinstance(values.get(key), str) or not values[key]:
            raise self.wrong(f"{place} needs a {key}, as a text")
        return str(values[key])


def _concerning(general: Table, own: Table) -> Table:
    """Those of the general options that concern a file with these of its own."""
    if own.keys() & set(_WAYS.values()):
        general = {name: value for name, value in general.items() if name not in _WAYS.values()}
    whole = {**general, **own}
    encoder = whole.get("encoder", "gptq" if "statistics" in whole else "ggml")  # as `sprig quantize` takes it
    budget = bool(whole.keys() & {"size", "bpw"})
    return {
        name: value
        for name, value in general.items()
        if encoder in _OF_ENCODER.get(name, (encoder,)) and budget is _OF_BUDGET.get(name, budget)
    }


def _short(model: str) -> str:
    """The last part of a model's name: "org/name@revision" and "folder/name.gguf" are "name"."""
    return re.split(r"[@:]", model.rstrip("/").rsplit("/", 1)[-1])[0].removesuffix(".gguf")


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.")[:150]
