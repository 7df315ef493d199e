"""Checking a whole value against its schema: JSON Schema draft 2020-12, as far as tools use it."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from agent.errors import SchemaError
from agent.grammar.automata.dfa import TooLargeError
from agent.grammar.automata.formats import EXAMPLES, format_automaton
from agent.grammar.automata.regex import NotRegularError, compile_pattern, python_pattern
from agent.grammar.schema.interval import exact
from agent.grammar.schema.merge import identity, resolve
from agent.text import display

_MAX_DEPTH = 200
_MAX_CHECKED = 2000  # characters that a pattern with no automaton is tried on: such a search can take exponential time
_MAX_WORK = 200_000  # schemas applied to values

# Of (checker, value, the keyword's value, schema, path): what is wrong, one line each; None for a part that is right.
Check = Callable[["_Checker", Any, Any, Mapping[str, Any], str], Iterable[str | None]]


def validate(value: Any, schema: Any, root: Any = None) -> str | None:
    """What is wrong with a value, in one line for the model to read, beginning with the place; None when nothing is.

    Args:
        value: of JSON's types.
        schema: JSON Schema. An object with ``properties`` and without ``additionalProperties`` may have others here.
        root: the document that references lead into; by default the schema itself.
    """
    try:
        return _Checker(schema if root is None else root).check(value, schema, "")
    except RecursionError:
        return "the value cannot be checked: it nests too deep"


class _Checker:
    def __init__(self, root: Any) -> None:
        self.root = root
        self.depth = 0
        self.work = 0

    def check(self, value: Any, schema: Any, path: str) -> str | None:
        """The first thing that is wrong with the value at ``path``."""
        if schema is True or (not schema and schema is not False):
            return None
        if value is None and isinstance(schema, Mapping) and schema.get("nullable") is True:
            return None
        place = _at(path)
        if schema is False:
            return f"{place} is not allowed"
        self.work += 1
        if self.depth > _MAX_DEPTH or self.work > _MAX_WORK:
            return f"{place} cannot be checked: the schema leads too deep or too far"
        if not isinstance(schema, Mapping):
            return f"{place} cannot be checked: its schema is not an object"
        self.depth += 1
        try:
            for keyword, (kind, check) in _CHECKS.items():
                if keyword in schema and (not kind or _is(value, kind)):
                    wrong = next(filter(None, check(self, value, schema[keyword], schema, path)), None)
                    if wrong is not None:
                        return wrong
        except (TypeError, ValueError, AttributeError, ArithmeticError):
            return f"{place} cannot be checked: the schema's {keyword} is wrong"
        except SchemaError as error:
            return f"{place} cannot be checked: {error}"
        finally:
            self.depth -= 1
        return None


def _shown(value: Any) -> str:
    text = display(repr(value) if isinstance(value, str) else str(value))
    return text if len(text) <= 60 else text[:59] + "\u2026"


def _at(path: str) -> str:
    return path or "the value"


def _is(value: Any, kind: Any) -> bool:
    if isinstance(value, bool) or value is None:
        return bool(kind == ("null" if value is None else "boolean"))
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(kind, str) and isinstance(value, _CLASSES.get(kind, ()))


_CLASSES: dict[str, Any] = {"number": (int, float), "string": str, "array": (list, tuple), "object": Mapping}


def _type(c: _Checker, value: Any, kinds: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if not any(_is(value, kind) for kind in kinds):
        yield f"{_at(path)} is {_shown(value)}; it must be {' or '.join(map(str, kinds))}"


def _enum(c: _Checker, value: Any, allowed: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if identity(value) not in map(identity, allowed):
        yield f"{_at(path)} is {_shown(value)}; it must be one of {', '.join(map(_shown, list(allowed)[:20]))}"


def _const(c: _Checker, value: Any, only: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if identity(value) != identity(only):
        yield f"{_at(path)} is {_shown(value)}; it must be {_shown(only)}"


def _number(words: str, holds: Callable[[Any, Any], bool], draft4: str = "") -> tuple[str, Check]:
    def check(c: _Checker, value: Any, bound: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
        if bound is True and draft4:
            bound = schema.get(draft4)
        if bound is None or isinstance(bound, bool):
            return
        if not holds(exact(value), exact(bound)):
            yield f"{_at(path)} is {_shown(value)}; it must be {words} {bound}"

    return "number", check


def _size(kind: str, words: str, holds: Callable[[int, Any], bool]) -> tuple[str, Check]:
    def check(c: _Checker, value: Any, bound: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
        if not holds(len(value), bound):
            yield f"{_at(path)} has {len(value)} {'characters' if kind == 'string' else 'items'}; it must have {words} {bound}"

    return kind, check


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
    if not _searcher(pattern)(value):
        yield f"{_at(path)} is {_shown(value)}; it must match {_shown(pattern)}"


def _format(c: _Checker, value: Any, name: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    known = format_automaton(name) if isinstance(name, str) else None
    if known is not None and not (known[0].accepts(value) and (known[1] is None or len(value) <= known[1])):
        example = f", like {EXAMPLES[name]}" if name in EXAMPLES else ""
        yield f"{_at(path)} is {_shown(value)}; it must be a {name}{example}"


def _encoding(c: _Checker, value: Any, name: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    return _format(c, value, name, schema, path) if name == "base64" else iter(())


def _required(c: _Checker, value: Any, names: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    return (f"{_at(path)} lacks {_shown(name)}" for name in names if name not in value)


def _properties(c: _Checker, value: Any, members: Any, schema: Mapping[str, Any], path: str) -> Iterator[str | None]:
    return (c.check(value[name], member, _join(path, name)) for name, member in members.items() if name in value)


def _pattern_properties(c: _Checker, value: Any, patterns: Any, schema: Mapping[str, Any], path: str) -> Iterator[str | None]:
    for pattern, member in patterns.items():
        search = _searcher(pattern)
        yield from (c.check(value[name], member, _join(path, name)) for name in value if search(name))


def _additional(c: _Checker, value: Any, extra: Any, schema: Mapping[str, Any], path: str) -> Iterator[str | None]:
    patterns = [_searcher(pattern) for pattern in schema.get("patternProperties", ())]
    for name in value:
        if name not in schema.get("properties", ()) and not any(search(name) for search in patterns):
            yield c.check(value[name], extra, _join(path, name))


def _property_names(c: _Checker, value: Any, names: Any, schema: Mapping[str, Any], path: str) -> Iterator[str | None]:
    return (c.check(name, names, f"a name in {_at(path)}") for name in value)


def _dependencies(c: _Checker, value: Any, needs: Any, schema: Mapping[str, Any], path: str) -> Iterator[str | None]:
    """What a member brings with it: names that must be there too, or a schema."""
    for name, others in needs.items():
        if name not in value:
            continue
        if isinstance(others, (list, tuple)):
            yield from (f"{_at(path)} has {_shown(name)} and so needs {_shown(o)}" for o in others if o not in value)
        else:
            yield c.check(value, others, path)


def _items(c: _Checker, value: Any, items: Any, schema: Mapping[str, Any], path: str) -> Iterator[str | None]:
    if isinstance(items, (list, tuple)):  # draft 7
        yield from _prefix_items(c, value, items, schema, path)
        start, items = len(items), schema.get("additionalItems", True)
    else:
        start = len(schema.get("prefixItems", ()))
    yield from (c.check(value[at], items, f"{path}[{at}]") for at in range(start, len(value)))


def _prefix_items(c: _Checker, value: Any, heads: Any, schema: Mapping[str, Any], path: str) -> Iterator[str | None]:
    return (c.check(item, head, f"{path}[{at}]") for at, (item, head) in enumerate(zip(value, heads, strict=False)))


def _contains(c: _Checker, value: Any, schema: Any, around: Mapping[str, Any], path: str) -> Iterator[str]:
    found = sum(c.check(item, schema, path) is None for item in value)
    if not around.get("minContains", 1) <= found <= around.get("maxContains", len(value)):
        yield f"{_at(path)} holds {found} of the items that it must contain"


def _unique(c: _Checker, value: Any, unique: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    seen: set[Any] = set()
    for item in value if unique is True else ():
        key = identity(item)
        if key in seen:
            yield f"{_at(path)} holds {_shown(item)} twice; its items must differ"
        seen.add(key)


def _all_of(c: _Checker, value: Any, parts: Any, schema: Mapping[str, Any], path: str) -> Iterator[str | None]:
    return (c.check(value, part, path) for part in parts)


def _options(only_one: bool) -> Check:
    """Of anyOf and oneOf: a value must fit one of them."""

    def check(c: _Checker, value: Any, options: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
        wrongs = [c.check(value, option, path) for option in options]
        fitting = wrongs.count(None)
        if not fitting:
            yield f"{_at(path)} fits none of {len(wrongs)} alternatives; of the first: {wrongs[0] if wrongs else 'nothing'}"
        elif only_one and fitting > 1:
            yield f"{_at(path)} fits {fitting} alternatives; it must fit one"

    return check


def _not(c: _Checker, value: Any, other: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if c.check(value, other, path) is None:
        yield f"{_at(path)} is {_shown(value)}, which is excluded"


def _if(c: _Checker, value: Any, test: Any, schema: Mapping[str, Any], path: str) -> Iterator[str | None]:
    branch = "then" if c.check(value, test, path) is None else "else"
    yield c.check(value, schema.get(branch, True), path)


def _ref(c: _Checker, value: Any, pointer: Any, schema: Mapping[str, Any], path: str) -> Iterator[str | None]:
    yield c.check(value, resolve(c.root, pointer), path)


def _join(path: str, name: str) -> str:
    plain = re.fullmatch(r"[A-Za-z_][\w-]*", name) is not None
    return (f"{path}.{name}" if path else name) if plain else f"{path}[{_shown(name)}]"


# The type of value that each keyword speaks of (empty: every one), and its check.
_CHECKS: dict[str, tuple[str, Check]] = {
    "$ref": ("", _ref), "type": ("", _type), "enum": ("", _enum), "const": ("", _const),
    "minimum": _number("at least", operator.ge), "maximum": _number("at most", operator.le),
    "exclusiveMinimum": _number("greater than", operator.gt, "minimum"),
    "exclusiveMaximum": _number("less than", operator.lt, "maximum"),
    "multipleOf": _number("a multiple of", lambda a, b: a % b == 0),
    "minLength": _size("string", "at least", operator.ge), "maxLength": _size("string", "at most", operator.le),
    "pattern": ("string", _pattern), "format": ("string", _format), "contentEncoding": ("string", _encoding),
    "required": ("object", _required), "properties": ("object", _properties),
    "patternProperties": ("object", _pattern_properties), "additionalProperties": ("object", _additional),
    "propertyNames": ("object", _property_names),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "dependencies"), ("object", _dependencies)),
    "minProperties": _size("object", "at least", operator.ge), "maxProperties": _size("object", "at most", operator.le),
    "minItems": _size("array", "at least", operator.ge), "maxItems": _size("array", "at most", operator.le),
    "prefixItems": ("array", _prefix_items), "items": ("array", _items), "contains": ("array", _contains),
    "uniqueItems": ("array", _unique),
    "allOf": ("", _all_of), "anyOf": ("", _options(False)), "oneOf": ("", _options(True)), "not": ("", _not), "if": ("", _if),
}  # fmt: skip
