"""allOf, anyOf, oneOf and $ref taken apart: a schema becomes a list of plain ones, each of which alone would do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any
from urllib.parse import unquote

from agent.errors import SchemaError
from agent.grammar.schema.budget import Budget
from agent.grammar.schema.interval import exact
from agent.text import display

PATTERNS = "$patterns"  # of a plain schema: all its patterns; no keyword of JSON Schema begins so
FORMATS = "$formats"
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_NOTES = frozenset({
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "$schema", "$id", "$anchor",
    "$defs", "definitions", "contentEncoding", "contentMediaType",
})  # fmt: skip
_COMBINE = frozenset({"$ref", "allOf", "anyOf", "oneOf", "nullable", "pattern", "format", "const"})
_LEAST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")  # of two, the lesser counts
_MOST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
# What each keyword must be for anything to be made of it.
_SHAPES: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("required", "enum", "prefixItems", "allOf", "anyOf", "oneOf"), ((list, tuple), "a list")),
    **dict.fromkeys(("properties", "patternProperties"), (Mapping, "an object")),
    **dict.fromkeys(("items", "additionalItems"), ((Mapping, bool, list, tuple), "a schema")),
    **dict.fromkeys(("additionalProperties", "propertyNames"), ((Mapping, bool), "a schema")),
    **dict.fromkeys((*_LEAST, *_MOST, "multipleOf"), ((int, float), "a number")),
    **dict.fromkeys(("pattern", "format"), (str, "a string")),
}


def resolve(root: Any, pointer: Any) -> Any:
    """What a ``$ref`` within the document ``root`` points to (RFC 6901).

    Raises:
        SchemaError: it points elsewhere or to nothing.
    """
    shown = display(str(pointer)[:80])
    if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
        raise SchemaError(f"a schema refers to {shown}; only references within it (#/...) can be followed")
    at = root
    for part in pointer.split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(at, Mapping) and name in at:
            at = at[name]
        elif isinstance(at, (list, tuple)) and name.isdecimal() and int(name) < len(at):
            at = at[int(name)]
        else:
            raise SchemaError(f"a schema refers to {shown}, which is not in it")
    return at


def identity(value: Any) -> Any:
    """What is equal, and hashed alike, for equal JSON values: 1 is 1.0, but not true."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, (list, tuple)):
        return tuple(map(identity, value))
    if isinstance(value, Mapping):
        return frozenset((name, identity(member)) for name, member in value.items())
    return value


def types_of(schema: Mapping[str, Any]) -> list[str]:
    """The types that a plain schema allows, or, where it names none, that its keywords are about; all if they say nothing."""
    said = schema.get("type")
    if said is not None:
        named = [said] if isinstance(said, str) else said
        if not isinstance(named, (list, tuple)) or not all(name in TYPES for name in named):
            raise SchemaError(f"a schema has the type {display(str(said)[:60])}; JSON has {', '.join(TYPES)}")
        return [t for t in TYPES if t in named and not (t == "integer" and "number" in named)]
    about = {
        "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties", "patternProperties"),
        "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"),
        "string": (PATTERNS, FORMATS, "minLength", "maxLength"),
        "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    }
    found = [name for name, keywords in about.items() if any(keyword in schema for keyword in keywords)]
    return found or [t for t in TYPES if t != "integer"]


def branches(schema: Any, root: Any, budget: Budget, following: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The plain schemas (without combinations and references) one of which a value must fulfil.

    Raises:
        SchemaError: a reference leads to itself, or the combinations are too many.
    """
    budget.spend()
    if schema is True:
        return [{}]
    if schema is False:
        return []
    if not isinstance(schema, Mapping):
        raise SchemaError(f"a schema is {display(str(schema)[:60])}; it must be an object, true or false")
    for keyword, (shape, words) in _SHAPES.items():
        if keyword in schema and not isinstance(schema[keyword], shape):
            raise SchemaError(f"a schema's {keyword} is {display(str(schema[keyword])[:60])}; it must be {words}")
    if not all(isinstance(name, str) for name in schema.get("required", ())):
        raise SchemaError("a schema's required holds something that is not a name")
    plain = {k: v for k, v in schema.items() if k not in _NOTES and k not in _COMBINE}
    if "pattern" in schema:
        plain[PATTERNS] = (schema["pattern"],)
    if "format" in schema:
        plain[FORMATS] = (schema["format"],)
    if schema.get("contentEncoding") == "base64":
        plain[FORMATS] = (*plain.get(FORMATS, ()), "base64")
    if "const" in schema:
        plain = _merge(plain, {"enum": [schema["const"]]}) if "enum" in plain else {**plain, "enum": [schema["const"]]}
    found = [plain]
    if "$ref" in schema:
        pointer = schema["$ref"]
        if pointer in following:
            raise SchemaError(f"a schema's reference {display(str(pointer)[:80])} leads back to itself with nothing in between")
        found = _cross(found, branches(resolve(root, pointer), root, budget, (*following, pointer)), budget)
    for part in schema.get("allOf", ()):
        found = _cross(found, branches(part, root, budget, following), budget)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            options = [b for option in schema[keyword] for b in branches(option, root, budget, following)]
            found = _cross(found, options, budget)
    if schema.get("nullable") is True:  # OpenAPI 3.0; also beside $ref or enum, where people mean it and the text is silent
        found.append({"type": "null"})
    return found


def _cross(left: list[dict[str, Any]], right: list[dict[str, Any]], budget: Budget) -> list[dict[str, Any]]:
    budget.spend(len(left) * len(right))
    merged = (_merge(a, b) for a in left for b in right)
    return [m for m in merged if m is not None]


def _merge(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """A plain schema of what fulfils both; one with an empty ``enum`` where nothing can."""
    if not a or not b:
        return a or b
    out = {**a, **b}
    for key in a.keys() & b.keys():
        out[key] = _both(key, a[key], b[key])
    if "type" in a and "type" in b:
        left, right = types_of(a), types_of(b)
        common = [t for t in left if t in right or (t == "integer" and "number" in right)]
        common += [t for t in right if t == "integer" and "number" in left]
        out["type"] = common
        if not common:
            return {"enum": []}
    if "enum" in a and "enum" in b:
        allowed = set(map(identity, b["enum"]))
        out["enum"] = [value for value in a["enum"] if identity(value) in allowed]
    _merge_members(a, b, out)
    if "items" in out or "prefixItems" in out:
        (ours, rest_a), (theirs, rest_b) = heads_of(a), heads_of(b)
        ours += [rest_a] * (len(theirs) - len(ours))
        theirs += [rest_b] * (len(ours) - len(theirs))
        out["prefixItems"] = [_all(x, y) for x, y in zip(ours, theirs, strict=True)]
        out["items"] = _all(rest_a, rest_b)
    return out


def _both(key: str, a: Any, b: Any) -> Any:
    try:
        if key in _LEAST:
            return min(a, b)
        if key in _MOST:
            return max(a, b)
        if key == "multipleOf":
            x, y = exact(a), exact(b)
            step = Fraction(math.lcm(x.numerator, y.numerator), math.gcd(x.denominator, y.denominator))
            return int(step) if step.denominator == 1 else float(step)
    except (TypeError, ValueError, OverflowError):
        raise SchemaError(f"a schema's {key} is not a number") from None
    if key in (PATTERNS, FORMATS):
        return tuple(dict.fromkeys((*a, *b)))
    if key == "required":
        return list(dict.fromkeys([*a, *b]))
    if key == "uniqueItems":
        return a or b
    return b


def _merge_members(a: dict[str, Any], b: dict[str, Any], out: dict[str, Any]) -> None:
    extra = [side["additionalProperties"] for side in (a, b) if "additionalProperties" in side]
    if extra:
        out["additionalProperties"] = _all(*extra)
    if "properties" in out:
        ours, theirs = a.get("properties", {}), b.get("properties", {})
        rest_a, rest_b = a.get("additionalProperties", True), b.get("additionalProperties", True)
        out["properties"] = {
            name: _all(ours[name], theirs.get(name, rest_b)) if name in ours else _all(theirs[name], rest_a)
            for name in dict.fromkeys([*ours, *theirs])
        }


def heads_of(plain: Mapping[str, Any]) -> tuple[list[Any], Any]:
    """The schemas of an array's first items, and that of the others."""
    heads, rest = plain.get("prefixItems", []), plain.get("items", True)
    if isinstance(rest, (list, tuple)):  # draft 7
        heads, rest = rest, plain.get("additionalItems", True)
    return list(heads), rest


def _all(*schemas: Any) -> Any:
    parts = [schema for schema in schemas if schema is not True]
    if any(part is False for part in parts):
        return False
    if not parts:
        return True
    return parts[0] if len(parts) == 1 or parts[0] == parts[1] else {"allOf": parts}
