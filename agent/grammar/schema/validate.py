"""Checking a whole value against its schema: JSON Schema draft 2020-12, as far as tools use it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from agent.errors import SchemaError
from agent.grammar.automata.dfa import TooLargeError
from agent.grammar.automata.formats import format_automaton
from agent.grammar.automata.regex import NotRegularError, compile_pattern, python_pattern
from agent.grammar.schema.merge import resolve, same
from agent.grammar.schema.numbers import exact
from agent.text import display

_MAX_DEPTH = 200
_MAX_CHECKED = 2000  # characters that a pattern with no automaton is tried on: such a search can take exponential time
_MAX_WORK = 200_000  # schemas applied to values

Check = Callable[["_Checker", Any, Any, Mapping[str, Any], str], Iterator[str]]


def validate(value: Any, schema: Any) -> str | None:
    """What is wrong with a value, in one line for the model to read, beginning with the place; None when nothing is.

    Args:
        value: of JSON's types.
        schema: JSON Schema. An object with ``properties`` and without ``additionalProperties`` may have others here.
    """
    return _check(value, schema, schema)


def valid(value: Any, schema: Any, root: Any) -> bool:
    """Whether a value fulfils a schema whose references lead into the document ``root``."""
    return _check(value, schema, root) is None


def _check(value: Any, schema: Any, root: Any) -> str | None:
    try:
        return _Checker(root).first(value, schema, "", 0)
    except RecursionError:
        return "the value cannot be checked: it nests too deep"


class _Checker:
    def __init__(self, root: Any) -> None:
        self.root = root
        self.depth = 0
        self.work = 0

    def first(self, value: Any, schema: Any, path: str, depth: int) -> str | None:
        if schema is True or (not schema and schema is not False):
            return None
        place = path or "the value"
        if schema is False:
            return f"{place} is not allowed"
        self.work += 1
        if depth > _MAX_DEPTH or self.work > _MAX_WORK:
            return f"{place} cannot be checked: the schema leads too deep or too far"
        if not isinstance(schema, Mapping):
            return f"{place} cannot be checked: its schema is not an object"
        self.depth = depth + 1
        for keyword, check in _CHECKS.items():
            if keyword in schema:
                try:
                    wrong = next(check(self, value, schema[keyword], schema, path), None)
                except (TypeError, ValueError, AttributeError, ArithmeticError):
                    wrong = f"{place} cannot be checked: the schema's {keyword} is wrong"
                except SchemaError as error:
                    wrong = f"{place} cannot be checked: {error}"
                self.depth = depth + 1
                if wrong is not None:
                    return wrong
        return None

    def sub(self, value: Any, schema: Any, path: str) -> str | None:
        return self.first(value, schema, path, self.depth)


def _shown(value: Any) -> str:
    text = display(repr(value) if isinstance(value, str) else str(value))
    return text if len(text) <= 60 else text[:59] + "\u2026"


def _at(path: str) -> str:
    return path or "the value"


def _is(value: Any, kind: Any) -> bool:
    if kind == "null":
        return value is None
    if kind == "boolean":
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if kind == "number":
        return isinstance(value, (int, float))
    if kind == "string":
        return isinstance(value, str)
    if kind == "array":
        return isinstance(value, (list, tuple))
    return kind == "object" and isinstance(value, Mapping)


def _type(c: _Checker, value: Any, kinds: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if not any(_is(value, kind) for kind in kinds) and not (schema.get("nullable") is True and value is None):
        yield f"{_at(path)} is {_shown(value)}; it must be {' or '.join(map(str, kinds))}"


def _enum(c: _Checker, value: Any, allowed: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if not any(same(value, option) for option in allowed):
        yield f"{_at(path)} is {_shown(value)}; it must be one of {', '.join(map(_shown, list(allowed)[:20]))}"


def _const(c: _Checker, value: Any, only: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if not same(value, only):
        yield f"{_at(path)} is {_shown(value)}; it must be {_shown(only)}"


def _number(words: str, holds: Callable[[Any, Any], bool], draft4: str = "") -> Check:
    def check(c: _Checker, value: Any, bound: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
        if bound is True and draft4:
            bound = schema.get(draft4)
        if bound is None or isinstance(bound, bool):
            return
        if _is(value, "number") and not holds(exact(value), exact(bound)):
            yield f"{_at(path)} is {_shown(value)}; it must be {words} {bound}"

    return check


def _size(kind: str, words: str, holds: Callable[[int, Any], bool]) -> Check:
    def check(c: _Checker, value: Any, bound: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
        if _is(value, kind) and not holds(len(value), bound):
            yield f"{_at(path)} has {len(value)} {'characters' if kind == 'string' else 'items'}; it must have {words} {bound}"

    return check


@lru_cache(maxsize=256)
def _searcher(pattern: str) -> Callable[[str], bool]:
    try:
        return compile_pattern(pattern).accepts
    except (NotRegularError, TooLargeError):
        pass
    try:
        compiled = re.compile(python_pattern(pattern), re.ASCII)
    except (re.error, RecursionError, OverflowError):
        return lambda text: True  # nobody here can tell
    return lambda text: len(text) > _MAX_CHECKED or compiled.search(text) is not None


def _pattern(c: _Checker, value: Any, pattern: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, str) and not _searcher(pattern)(value):
        yield f"{_at(path)} is {_shown(value)}; it must match {_shown(pattern)}"


def _format(c: _Checker, value: Any, name: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    known = format_automaton(name) if isinstance(value, str) and isinstance(name, str) else None
    if known is not None and not (known[0].accepts(value) and (known[1] is None or len(value) <= known[1])):
        yield f"{_at(path)} is {_shown(value)}; it must be a {name}"


def _required(c: _Checker, value: Any, names: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name in names:
            if name not in value:
                yield f"{_at(path)} lacks {_shown(name)}"


def _properties(c: _Checker, value: Any, members: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, member in members.items():
            if name in value:
                yield from _each(c.sub(value[name], member, _join(path, name)))


def _pattern_properties(c: _Checker, value: Any, patterns: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for pattern, member in patterns.items():
            search = _searcher(pattern)
            for name in value:
                if search(name):
                    yield from _each(c.sub(value[name], member, _join(path, name)))


def _additional(c: _Checker, value: Any, extra: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        patterns = [_searcher(pattern) for pattern in schema.get("patternProperties", ())]
        for name in value:
            if name not in schema.get("properties", ()) and not any(search(name) for search in patterns):
                yield from _each(c.sub(value[name], extra, _join(path, name)))


def _property_names(c: _Checker, value: Any, names: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name in value:
            yield from _each(c.sub(name, names, f"a name in {_at(path)}"))


def _dependent_required(c: _Checker, value: Any, needs: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, others in needs.items():
            for other in others if name in value and isinstance(others, (list, tuple)) else ():
                if other not in value:
                    yield f"{_at(path)} has {_shown(name)} and so needs {_shown(other)}"


def _dependent_schemas(c: _Checker, value: Any, needs: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, other in needs.items():
            if name in value and not isinstance(other, (list, tuple)):
                yield from _each(c.sub(value, other, path))


def _items(c: _Checker, value: Any, items: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if not isinstance(value, (list, tuple)):
        return
    if isinstance(items, (list, tuple)):  # draft 7
        yield from _prefix_items(c, value, items, schema, path)
        start, items = len(items), schema.get("additionalItems", True)
    else:
        start = len(schema.get("prefixItems", ()))
    for at in range(start, len(value)):
        yield from _each(c.sub(value[at], items, f"{path}[{at}]"))


def _prefix_items(c: _Checker, value: Any, heads: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, (list, tuple)):
        for at, (item, head) in enumerate(zip(value, heads, strict=False)):
            yield from _each(c.sub(item, head, f"{path}[{at}]"))


def _contains(c: _Checker, value: Any, schema: Any, around: Mapping[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, (list, tuple)):
        found = sum(c.sub(item, schema, path) is None for item in value)
        if not around.get("minContains", 1) <= found <= around.get("maxContains", len(value)):
            yield f"{_at(path)} holds {found} of the items that it must contain"


def _unique(c: _Checker, value: Any, unique: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if unique is True and isinstance(value, (list, tuple)):
        seen: set[Any] = set()
        for item in value:
            key = _key(item)
            if key in seen:
                yield f"{_at(path)} holds {_shown(item)} twice; its items must differ"
            seen.add(key)


def _key(value: Any) -> Any:
    """Equal for equal JSON values: 1 is 1.0, but not true."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, (list, tuple)):
        return tuple(map(_key, value))
    if isinstance(value, Mapping):
        return frozenset((name, _key(member)) for name, member in value.items())
    return value


def _all_of(c: _Checker, value: Any, parts: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    for part in parts:
        yield from _each(c.sub(value, part, path))


def _any_of(c: _Checker, value: Any, options: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    wrongs = [c.sub(value, option, path) for option in options]
    if None not in wrongs:
        yield f"{_at(path)} fits none of {len(wrongs)} alternatives; of the first: {wrongs[0] if wrongs else 'nothing'}"


def _one_of(c: _Checker, value: Any, options: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    wrongs = [c.sub(value, option, path) for option in options]
    if None not in wrongs:
        yield f"{_at(path)} fits none of {len(wrongs)} alternatives; of the first: {wrongs[0] if wrongs else 'nothing'}"
    elif wrongs.count(None) > 1:
        yield f"{_at(path)} fits {wrongs.count(None)} alternatives; it must fit one"


def _not(c: _Checker, value: Any, other: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if c.sub(value, other, path) is None:
        yield f"{_at(path)} is {_shown(value)}, which is excluded"


def _if(c: _Checker, value: Any, test: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    branch = "then" if c.sub(value, test, path) is None else "else"
    yield from _each(c.sub(value, schema.get(branch, True), path))


def _ref(c: _Checker, value: Any, pointer: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    yield from _each(c.sub(value, resolve(c.root, pointer), path))


def _each(wrong: str | None) -> Iterator[str]:
    if wrong is not None:
        yield wrong


def _join(path: str, name: str) -> str:
    plain = re.fullmatch(r"[A-Za-z_][\w-]*", name) is not None
    return (f"{path}.{name}" if path else name) if plain else f"{path}[{_shown(name)}]"


_CHECKS: dict[str, Check] = {
    "$ref": _ref, "type": _type, "enum": _enum, "const": _const,
    "minimum": _number("at least", lambda a, b: a >= b), "maximum": _number("at most", lambda a, b: a <= b),
    "exclusiveMinimum": _number("greater than", lambda a, b: a > b, "minimum"),
    "exclusiveMaximum": _number("less than", lambda a, b: a < b, "maximum"),
    "multipleOf": _number("a multiple of", lambda a, b: a % b == 0),
    "minLength": _size("string", "at least", lambda a, b: a >= b), "maxLength": _size("string", "at most", lambda a, b: a <= b),
    "pattern": _pattern, "format": _format,
    "required": _required, "properties": _properties, "patternProperties": _pattern_properties,
    "additionalProperties": _additional,
    "propertyNames": _property_names, "dependentRequired": _dependent_required, "dependentSchemas": _dependent_schemas,
    "dependencies": lambda *a: iter([*_dependent_required(*a), *_dependent_schemas(*a)]),
    "minProperties": _size("object", "at least", lambda a, b: a >= b),
    "maxProperties": _size("object", "at most", lambda a, b: a <= b),
    "minItems": _size("array", "at least", lambda a, b: a >= b), "maxItems": _size("array", "at most", lambda a, b: a <= b),
    "prefixItems": _prefix_items, "items": _items, "contains": _contains, "uniqueItems": _unique,
    "allOf": _all_of, "anyOf": _any_of, "oneOf": _one_of, "not": _not, "if": _if,
}  # fmt: skip
