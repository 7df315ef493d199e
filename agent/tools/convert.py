"""JSON values as the Python types that a function asks for."""

from __future__ import annotations

import contextlib
import enum
import operator
import re
import typing
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from agent.text import brief
from agent.tools import schema
from agent.tools.forms import NUMBER, JsonForm, form_of, refusal
from agent.tools.result import ToolError
from agent.tools.schema import Field, fields_of, marks_of


class _Mismatch(ToolError):
    pass


def convert_fields(values: Mapping[str, Any], fields: Sequence[Field], local: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call, by name, as the hinted types; those with a default may be missing.

    Raises:
        ToolError: one is missing, unknown, or does not fit; the message is for the model.
    """
    known = {f.name: f for f in fields}
    if unknown := [name for name in values if name not in known]:
        names = ", ".join(known) or "none"
        raise ToolError(f"unknown argument {unknown[0]!r}: the arguments are {names}")
    if missing := [f.name for f in fields if f.required and f.name not in values]:
        raise ToolError(f"missing argument {', '.join(map(repr, missing))}")
    reader = _ArgumentReader(local)
    made: dict[str, Any] = {}
    for name, value in values.items():
        field = known[name]
        if value is None and field.default is None:
            made[name] = None
            continue
        try:
            made[name] = reader.read(value, field.annotation, name, strict=False)
        except RecursionError:
            raise ToolError(f"argument {name!r} is nested too deeply") from None
    return made


class _ArgumentReader:
    def __init__(self, local: Mapping[str, Any]) -> None:
        self._local = local

    def read(self, value: Any, annotation: Any, where: str, *, strict: bool) -> Any:
        annotation, marks = marks_of(annotation)
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        if type(typing.get_origin(annotation) or annotation).__name__ == "TypeAliasType":
            annotation = (typing.get_origin(annotation) or annotation).__value__
        made = self._plain(value, annotation, where, strict)
        for mark in marks:
            for source in (mark, *getattr(mark, "metadata", ())):
                _check_bounds(made, source, where)
        return made

    def _plain(self, value: Any, annotation: Any, where: str, strict: bool) -> Any:
        if annotation is Any or annotation is object:
            return value
        if annotation is None or annotation is type(None):
            if value is not None:
                raise _mismatch(where, "null", value)
            return None
        if schema.is_union(annotation):
            return self._union(value, typing.get_args(annotation), where)
        origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
        if origin is typing.Literal:
            return _among(value, {schema.plain_choice(a): a for a in arguments}, where)
        if isinstance(origin, type):
            if issubclass(origin, enum.Enum):
                return _among(value, {schema.enum_value(m): m for m in origin}, where)
            if origin in schema.SCALARS:
                return _scalar(value, origin, where, strict)
            if form := form_of(origin):
                return _in_form(value, origin, form, where)
            if schema.is_pydantic(origin):
                return _pydantic(value, origin, where)
            if schema.has_fields(origin):
                return self._fields(value, origin, where, strict)
        return self._collection(value, origin, arguments, where, strict)

    def _union(self, value: Any, choices: Sequence[Any], where: str) -> Any:
        first: ToolError | None = None
        for strict in (True, False):  # "5" is a text before it is a number
            for choice in choices:
                try:
                    return self.read(value, choice, where, strict=strict)
                except ToolError as e:
                    first = first or e
        if len([c for c in choices if c is not type(None)]) == 1 and first:
            raise first
        raise _mismatch(where, "one of the allowed forms", value)

    def _fields(self, value: Any, kind: Any, where: str, strict: bool) -> Any:
        if not isinstance(value, Mapping):
            raise _mismatch(where, "an object", value)
        fields = {f.name: f for f in fields_of(kind, self._local)}
        for name in value:
            if name not in fields:
                raise _Mismatch(f"{where}: unknown member {name!r}; the members are {', '.join(fields)}")
        for name, field in fields.items():
            if field.required and name not in value:
                raise _Mismatch(f"{where}: missing member {name!r}")
        made = {
            name: None if item is None and fields[name].default is None
            else self.read(item, fields[name].annotation, f"{where}.{name}", strict=strict)
            for name, item in value.items()
        }  # fmt: skip
        try:
            return kind(**made)
        except (TypeError, ValueError) as e:  # its own checks, as in __post_init__
            raise _Mismatch(f"{where}: {e}") from None

    def _collection(self, value: Any, origin: Any, arguments: Sequence[Any], where: str, strict: bool) -> Any:
        if origin in schema.MAPS:
            if not isinstance(value, Mapping):
                raise _mismatch(where, "an object", value)
            kind = arguments[1] if arguments else Any
            return {str(k): self.read(v, kind, f"{where}.{k}", strict=strict) for k, v in value.items()}
        if not isinstance(value, list | tuple):
            raise _mismatch(where, "a list", value)
        if origin is tuple and arguments and not (len(arguments) == 2 and arguments[1] is Ellipsis):
            kinds = [a for a in arguments if a != ()]
            if len(value) != len(kinds):
                raise _Mismatch(f"{where}: {len(kinds)} items are needed, {len(value)} were given")
            pairs = zip(value, kinds, strict=True)
            return tuple(self.read(v, k, f"{where}[{i}]", strict=strict) for i, (v, k) in enumerate(pairs))
        kind = arguments[0] if arguments else Any
        items = [self.read(v, kind, f"{where}[{i}]", strict=strict) for i, v in enumerate(value)]
        if origin in schema.SETS:
            try:
                return frozenset(items) if origin is frozenset else set(items)
            except TypeError:
                raise _mismatch(where, "a list of plain values", value) from None
        return tuple(items) if origin is tuple else items


def _mismatch(where: str, wanted: str, value: Any) -> _Mismatch:
    return _Mismatch(f"{where}: {wanted} is needed, not {brief(value, 60)}")


def _among(value: Any, choices: Mapping[Any, Any], where: str) -> Any:
    for known, made in choices.items():
        if known == value and isinstance(known, bool) == isinstance(value, bool):
            return made
    for known, made in choices.items():  # a small model writes "2" for 2 and "Red" for "red"
        if str(known).casefold() == str(value).casefold():
            return made
    raise _mismatch(where, "one of " + ", ".join(map(repr, choices)), value)


_WANTED = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}


def _scalar(value: Any, kind: type, where: str, strict: bool) -> Any:
    text = value if isinstance(value, str) and not strict else ""
    if kind in (int, float) and len(text) <= 40 and NUMBER.fullmatch(text.strip()):
        value = float(text) if any(c in text for c in ".eE") else int(text)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind in (str, bool) and isinstance(value, kind):
        return value
    if kind is str and number and not strict:
        return str(value)
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind is int and number and value % 1 == 0:
        return int(value)
    if kind is float and number:
        with contextlib.suppress(OverflowError):
            return float(value)
    raise _mismatch(where, _WANTED[kind], value)


def _in_form(value: Any, kind: Any, form: JsonForm, where: str) -> Any:
    try:
        return form.read(kind, value)
    except (ValueError, TypeError, ArithmeticError) as e:
        raise _Mismatch(f"{where}: {refusal(form, e, value)}") from None


def _pydantic(value: Any, model: Any, where: str) -> Any:
    try:
        return model.model_validate(value)
    except ValueError as e:
        raise _Mismatch(f"{where}: {' '.join(str(e).split())}") from None


_BOUNDS = (
    ("ge", "at least", operator.ge),
    ("gt", "more than", operator.gt),
    ("le", "at most", operator.le),
    ("lt", "less than", operator.lt),
)


def _digits(number: float | Decimal) -> int | Decimal:
    """A number as it is written: 0.1 is one tenth."""
    return Decimal(repr(number)) if isinstance(number, float) else number


def _check_bounds(value: Any, mark: Any, where: str) -> None:
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        for name, words, fits in _BOUNDS:
            bound = getattr(mark, name, None)
            if isinstance(bound, int | float | Decimal) and not fits(_digits(value), _digits(bound)):
                raise _Mismatch(f"{where}: must be {words} {bound}, not {value}")
    if isinstance(value, str | bytes | list | tuple | set | frozenset):
        least, most = getattr(mark, "min_length", None), getattr(mark, "max_length", None)
        what = {str: "characters", bytes: "bytes"}.get(type(value), "items")
        if isinstance(least, int) and len(value) < least:
            raise _Mismatch(f"{where}: at least {least} {what} are needed, not {len(value)}")
        if isinstance(most, int) and len(value) > most:
            raise _Mismatch(f"{where}: at most {most} {what} are allowed, not {len(value)}")
    pattern = getattr(mark, "pattern", None)
    if isinstance(value, str) and isinstance(pattern, str) and not re.fullmatch(pattern, value):
        raise _Mismatch(f"{where}: must match {pattern}, not {value!r}")
