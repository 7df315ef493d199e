"""What an MCP server says of its tools, made harmless: names that are unique, schemas that are schemas, changes that are seen."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.tools.result import cap, clean

SCHEMA_BYTES = 64_000
SCHEMA_DEPTH = 32
DESCRIPTION = 1_000  # characters; each is prefill in every conversation
_NAME = 64
_HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool as its server offers it.

    Attributes:
        name: the server's own.
        description: cleaned and cut.
        parameters: JSON Schema of an object.
        output: JSON Schema of the structured result, if it promises one.
        annotations: what the server claims of it (``readOnlyHint`` and the like); nothing proves it.
        digest: of name, description and schemas as they came.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    output: Mapping[str, Any] | None
    annotations: Mapping[str, bool] = field(default_factory=dict)
    digest: str = ""


def read_tool(raw: object) -> Offered | str:
    """One entry of a server's list as a tool, or why it is not a tool, in words."""
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str) or not 0 < len(raw["name"]) <= 256:
        return "a tool without a name"
    name, schema, output = raw["name"], raw.get("inputSchema"), raw.get("outputSchema")
    why = _unfit(schema)
    if why or not isinstance(schema, dict):
        return f"tool {name[:80]!r}: its schema {why}"
    if output is not None and _unfit(output):
        output = None
    said = raw.get("description")
    description = said if isinstance(said, str) else ""
    hints = raw.get("annotations")
    annotations = {key: hints[key] for key in _HINTS if isinstance(hints.get(key), bool)} if isinstance(hints, dict) else {}
    whole = json.dumps([name, description, schema, output], sort_keys=True)
    digest = hashlib.sha256(whole.encode()).hexdigest()
    return Offered(name, cap(clean(description), DESCRIPTION)[0], schema, output, annotations, digest)


def _unfit(schema: object) -> str:
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return "is not that of an object"
    if not isinstance(schema.get("properties", {}), dict) or not isinstance(schema.get("required", []), list):
        return "is broken"
    if _deeper(schema, SCHEMA_DEPTH):
        return f"is nested deeper than {SCHEMA_DEPTH}"
    try:
        size = len(json.dumps(schema, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass"))
    except (ValueError, TypeError):
        return "is no JSON"
    return f"is larger than {SCHEMA_BYTES // 1000} kB" if size > SCHEMA_BYTES else ""


def _deeper(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [inner for item in level if isinstance(item, (dict, list)) for inner in _inside(item)]
        if not level:
            return False
    return True


def _inside(value: Any) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value


def public_names(owned: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """(server, tool) -> the name that the model sees: ``server__tool``, at most 64 letters, digits, ``_`` and ``-``.

    Where that would not be unique, or too long, a name ends in a hash of the original, so that it is the same in every run and
    in whatever order the servers answer.
    """
    plain = {key: f"{_letters(key[0])}__{_letters(key[1])}" for key in owned}
    taken: dict[str, int] = {}
    for name in plain.values():
        taken[name] = taken.get(name, 0) + 1
    return {key: name if taken[name] == 1 and len(name) <= _NAME else _with_hash(key, name) for key, name in plain.items()}


def _letters(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


def _with_hash(key: tuple[str, str], name: str) -> str:
    mark = hashlib.sha256("\0".join(key).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name[: _NAME - 9]}_{mark}"


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "null": (type(None),),
    "integer": (int,), "number": (int, float),
}  # fmt: skip


def mismatch(value: object, schema: object, where: str = "result", depth: int = SCHEMA_DEPTH) -> str:
    """In words, where a result is not what its schema promised; empty when nothing is found.

    Looks at types, required members, enums and constants. It runs no regular expression of a server's: one could run for years,
    and Python could not stop it.
    """
    if not isinstance(schema, dict) or depth == 0:
        return ""
    kinds = schema.get("type")
    names = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    known = [name for name in names if isinstance(name, str) and name in _TYPES]
    if known and not any(_is_a(value, name) for name in known):
        return f"{where} is not of type {' or '.join(known)}"
    options = schema.get("enum")
    if isinstance(options, list) and not any(_same(value, option) for option in options):
        return f"{where} is none of the values that it may be"
    if "const" in schema and not _same(value, schema["const"]):
        return f"{where} is not the value that it must be"
    if isinstance(value, dict):
        return _object_mismatch(value, schema, where, depth)
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        found = (mismatch(item, schema["items"], f"{where}[{place}]", depth - 1) for place, item in enumerate(value))
        return next(filter(None, found), "")
    return ""


def _object_mismatch(value: dict[str, Any], schema: dict[str, Any], where: str, depth: int) -> str:
    required, properties = schema.get("required"), schema.get("properties")
    for key in required if isinstance(required, list) else ():
        if isinstance(key, str) and key not in value:
            return f"{where} lacks {key[:80]!r}"
    if isinstance(properties, dict):
        shared = (key for key in properties if key in value)
        found = (mismatch(value[key], properties[key], f"{where}.{key[:80]}", depth - 1) for key in shared)
        return next(filter(None, found), "")
    return ""


def _same(value: object, other: object) -> bool:
    """Equal as JSON has it, where true is not 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _is_a(value: object, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[name])
