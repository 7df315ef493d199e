"""What an MCP server says of its tools, made harmless: names that are unique, schemas that are schemas, changes that are seen."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import SprigError
from agent.files import atomic_write
from agent.grammar.schema.validate import validate
from agent.tools.result import cap, clean

SCHEMA_BYTES = 64_000
SCHEMA_DEPTH = 32
DESCRIPTION = 1_000  # characters; each is prefill in every conversation
_TITLE = 200
_NAME = 64
_HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
_TYPES = frozenset({"object", "array", "string", "boolean", "null", "integer", "number"})
_PIN_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool as its server offers it.

    Attributes:
        name: the server's own.
        description: cleaned and cut.
        parameters: JSON Schema of an object.
        output: JSON Schema of the structured result, if it promises one.
        annotations: what the server claims of it (``readOnlyHint`` and the like); nothing proves it.
        title: cleaned and cut; only a person reads it.
        digest: of all that a person or a model may go by, as it came: name, title, description, schemas, annotations.
        size: bytes of that.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    output: Mapping[str, Any] | None
    annotations: Mapping[str, bool] = field(default_factory=dict)
    digest: str = ""
    size: int = 0
    title: str = ""


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
    whole = json.dumps([name, raw.get("title"), description, schema, output, hints], sort_keys=True).encode()
    digest, title = hashlib.sha256(whole).hexdigest(), raw.get("title")
    shown = cap(clean(title), _TITLE)[0] if isinstance(title, str) else ""
    return Offered(name, cap(clean(description), DESCRIPTION)[0], schema, output, annotations, digest, len(whole), shown)


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
        inside = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))]
        level = list(itertools.chain.from_iterable(inside))
        if not level:
            return False
    return True


def public_names(owned: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """(server, tool) -> the name that the model sees: ``server__tool``, at most 64 letters, digits, ``_`` and ``-``.

    Where that would not be unique, or too long, a name ends in a hash of the original, so that it is the same in every run and
    in whatever order the servers answer.
    """
    plain = {key: f"{_letters(key[0])}__{_letters(key[1])}" for key in owned}
    taken = Counter(plain.values())
    return {key: name if taken[name] == 1 and len(name) <= _NAME else _with_hash(key, name) for key, name in plain.items()}


def _letters(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


def _with_hash(key: tuple[str, str], name: str) -> str:
    mark = hashlib.sha256("\0".join(key).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name[: _NAME - 9]}_{mark}"


def mismatch(value: object, schema: Mapping[str, Any]) -> str:
    """In words, where a result is not what its schema promised; empty when nothing is found.

    Looks at types, required members, enums and constants. It runs no regular expression of a server's: one could run for years,
    and Python could not stop it.
    """
    return validate(value, _checkable(schema)) or ""


def _checkable(schema: object) -> Any:
    """What of a schema is looked at, as far as it has a meaning."""
    if not isinstance(schema, dict):
        return True
    kept = {key: schema[key] for key in ("enum", "const") if key in schema and (key == "const" or isinstance(schema[key], list))}
    kinds, required, members = schema.get("type"), schema.get("required"), schema.get("properties")
    if known := [kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if isinstance(kind, str) and kind in _TYPES]:
        kept["type"] = known
    if isinstance(required, list):
        kept["required"] = [name for name in required if isinstance(name, str)]
    if isinstance(members, dict):
        kept["properties"] = {name: _checkable(member) for name, member in members.items()}
    if isinstance(schema.get("items"), dict):
        kept["items"] = _checkable(schema["items"])
    return kept


class Pins:
    """(server, tool) -> the digest that a person has seen, so that a later change is noticed. Kept in a file of JSON.

    A server that was trusted once can swap a tool's description or schema afterwards ("rug pull", CVE-2025-54136).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known = _read_pins(path)

    def changed(self, server: str, tool: str, digest: str) -> bool:
        """Whether the tool is another one than was first seen; one that was never seen is remembered now."""
        with self._lock:
            known = self._known.setdefault(server, {})
            if tool in known:
                return known[tool] != digest
            known[tool] = digest
            return False

    def accept(self, server: str, tool: str, digest: str) -> None:
        """The tool as it is now is the one that counts."""
        with self._lock:
            self._known.setdefault(server, {})[tool] = digest
        self.save()

    def save(self) -> str:
        """Write what is known; in words why that did not work, or nothing."""
        with self._lock:
            text = json.dumps(self._known, indent=1, sort_keys=True)
            if text == json.dumps(_read_pins(self._path), indent=1, sort_keys=True):
                return ""
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                atomic_write(self._path, text.encode("utf-8", "replace"))
            except (OSError, SprigError) as e:
                return f"what tools look like cannot be remembered: {e}"
        return ""


def _read_pins(path: Path) -> dict[str, dict[str, str]]:
    """What the file says; empty if it is missing or not ours: then every tool is new, and a person is asked."""
    try:
        with path.open("rb") as f:
            data = json.loads(f.read(_PIN_BYTES))
        return {
            str(server): {str(tool): str(digest) for tool, digest in tools.items()}
            for server, tools in data.items()
            if isinstance(tools, dict)
        }
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
