"""A tool call in words: its main argument for one line, its arguments, and its result as a person reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_MAIN = ("command", "path", "file", "url", "query", "text", "expression", "sql", "name", "topic")
_PATHS = frozenset({"path", "file"})
_PRETTY = 4_000  # characters of JSON that are laid out on lines
_FIELD = 100_000  # characters of a value that is written as JSON only to be folded


def value_text(value: Any) -> str:
    """A JSON value as text: a string as it is."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, default=str)[:_FIELD]
    except (ValueError, RecursionError):
        return "(a value that cannot be written down)"


def main_argument(arguments: Mapping[str, Any]) -> str:
    """The name of the argument that says most of a call: by name, else the first short one; empty when there is none."""
    for name in _MAIN:
        if isinstance(arguments.get(name), str) and arguments[name]:
            return name
    short = (k for k, v in arguments.items() if isinstance(v, int | float) or (isinstance(v, str) and 0 < len(v) <= 200))
    return next(short, "")


def is_path(name: str) -> bool:
    """Whether the end of this argument's value says more than its beginning."""
    return name in _PATHS


def result_text(text: str) -> str:
    """A result as it is read: small JSON on several lines, everything else as it is."""
    if len(text) > _PRETTY or text.lstrip()[:1] not in ("{", "["):
        return text
    try:
        pretty = json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return text
    return pretty if len(pretty) <= 3 * _PRETTY else text


def diff_of(data: Any) -> tuple[str, int]:
    """The diff that a tool gave with its result, and how many lines of it were left out; empty when there is none."""
    if not isinstance(data, Mapping) or not isinstance(data.get("diff"), str):
        return "", 0
    cut = data.get("diff_cut", 0)
    return data["diff"], cut if isinstance(cut, int) and cut > 0 else 0


def duration(seconds: float) -> str:
    """Seconds in few letters."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds) // 60
    return f"{minutes} min {round(seconds) % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
