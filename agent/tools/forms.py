"""Python types that JSON has none for, and the form in which a model writes their values."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

from agent.text import brief

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")  # in a text
_MAX_NUMBER = 100  # characters of a number in a text
# ISO 8601, of which years and months are read only to be refused: they have no fixed length.
_DURATION = re.compile(
    r"(?P<sign>[+-]?)P(?=[\dT])(?P<long>(?:\d+Y)?(?:\d+M)?)(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?=\d)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?"
)


class _UnfitError(ValueError):
    """A value cannot be used; ``str(error)`` tells the model why."""


@dataclass(frozen=True, slots=True)
class JsonForm:
    """The JSON form of a type.

    Attributes:
        schema: of the JSON value.
        read: makes a value of a type (this one or one derived from it) of a JSON value; raises ValueError or TypeError.
        write: makes the JSON value of one.
        wanted: what a model is told to write.
    """

    schema: Mapping[str, Any]
    read: Callable[[Any, Any], Any]
    write: Callable[[Any], Any]
    wanted: str


def form_of(kind: Any) -> JsonForm | None:
    """The form of a type; None for one that needs none or has none."""
    return next((_FORMS[base] for base in getattr(kind, "__mro__", ()) if base in _FORMS), None)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value.strip()


def read_duration(text: str) -> timedelta:
    """An ISO 8601 duration of weeks, days, hours, minutes and seconds. ValueError for anything else, with words for a model."""
    found = _DURATION.fullmatch(text)
    if found is None or len(text) > _MAX_NUMBER:
        raise ValueError
    if found["long"]:
        raise _UnfitError("years and months have no fixed length, write days, and minutes behind a T, like PT5M")
    parts = {name: float(found[name] or 0) for name in ("weeks", "days", "hours", "minutes", "seconds")}
    try:
        length = timedelta(**parts)
    except OverflowError:
        raise _UnfitError("that is too long") from None
    return -length if found["sign"] == "-" else length


def write_duration(length: timedelta) -> str:
    """A duration in ISO 8601: ``PT1H30M``, ``P2DT0.5S``."""
    sign, length = ("-", -length) if length < timedelta(0) else ("", length)
    hours, minutes = divmod(length.seconds // 60, 60)
    seconds, rest = length.seconds % 60, bool(length.seconds % 60 or length.microseconds)
    clock = f"{hours}H" if hours else ""
    if minutes or (hours and rest):  # RFC 3339 knows no seconds right behind hours
        clock += f"{minutes}M"
    if rest:
        clock += f"{seconds}.{length.microseconds:06}".rstrip("0").rstrip(".") + "S"
    days = f"{length.days}D" if length.days else ""
    return f"{sign}P{days}{'T' if clock else ''}{clock}" if days or clock else "PT0S"


def _duration(kind: Any, value: Any) -> timedelta:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return timedelta(seconds=value)
        except OverflowError:
            raise _UnfitError("that is too long") from None
    return read_duration(_text(value))


def _decimal(kind: Any, value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value):
        return kind(repr(value))  # the digits that were written, as far as a float keeps them
    if isinstance(value, int) and not isinstance(value, bool):
        return kind(value)
    text = _text(value)
    if len(text) > _MAX_NUMBER or not NUMBER.fullmatch(text):
        raise ValueError
    return kind(text)


def write_decimal(number: Decimal) -> int | float | str:
    """A number where JSON's own means the same, else its digits as a text."""
    if not number.is_finite() or abs(number.adjusted()) > 300:
        return str(number)
    if number == number.to_integral_value() and number.adjusted() < 20:
        return int(number)
    return float(number) if Decimal(repr(float(number))) == number else str(number)


def _bytes(kind: Any, value: Any) -> Any:
    text = re.sub(r"\s", "", _text(value)).rstrip("=")
    # Both alphabets of RFC 4648, with or without the padding, as far as it is what an encoder would have written.
    return kind(base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True))


def _moment(kind: Any, value: Any) -> Any:
    return kind.fromisoformat(_text(value))


def _string(name: str) -> dict[str, Any]:
    return {"type": "string", "format": name}


_BASE64 = JsonForm(
    {"type": "string", "contentEncoding": "base64"}, _bytes, lambda data: base64.b64encode(data).decode(), "base64 like aGVsbG8="
)  # fmt: skip
_FORMS: Mapping[type, JsonForm] = {
    datetime: JsonForm(_string("date-time"), _moment, lambda at: at.isoformat(), "a date and time like 2026-03-01T12:30:00Z"),
    date: JsonForm(_string("date"), _moment, lambda day: day.isoformat(), "a date like 2026-03-01"),
    time: JsonForm(_string("time"), _moment, lambda at: at.isoformat(), "a time like 12:30:00Z"),
    timedelta: JsonForm(_string("duration"), _duration, write_duration, "a duration like PT1H30M or P2D"),
    UUID: JsonForm(_string("uuid"), lambda kind, value: kind(_text(value)), str, "a UUID"),
    Decimal: JsonForm({"type": "number"}, _decimal, write_decimal, "a number"),
    bytes: _BASE64,
    bytearray: _BASE64,
    PurePath: JsonForm({"type": "string"}, lambda kind, value: kind(_path(value)), str, "a path"),
}


def _path(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def refusal(form: JsonForm, error: Exception, value: Any) -> str:
    """What a model is told of a value that is not in the form."""
    why = f" ({error})" if isinstance(error, _UnfitError) else ""
    return f"{form.wanted} is needed, not {brief(value, 60)}{why}"
