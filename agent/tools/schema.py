"""Python types as JSON Schema (2020-12), for the model and for the grammar that binds it."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import sys
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, MutableSequence, MutableSet, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from typing import Any

from agent.tools.docstring import parse_docstring
from agent.tools.forms import form_of, write_decimal

Schema = dict[str, Any]

MISSING: Any = inspect.Parameter.empty
SCALARS: Mapping[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
LISTS = frozenset({list, Sequence, MutableSequence, Iterable, Collection})
SETS = frozenset({set, frozenset, AbstractSet, MutableSet})
MAPS = frozenset({dict, Mapping, MutableMapping})


class UndescribableError(TypeError):
    """A type has no JSON form; the message says which and what could stand for it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """For ``Annotated[int, Bounds(ge=1, le=4)]``; objects of other libraries with these attributes work as well.

    Attributes:
        ge, gt, le, lt: of a number.
        min_length, max_length: of a text (characters) or of a list (items).
        pattern: regular expression that a text must match from start to end.
    """

    ge: float | Decimal | None = None
    gt: float | Decimal | None = None
    le: float | Decimal | None = None
    lt: float | Decimal | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One member of a dataclass, TypedDict or named tuple, or one parameter of a function."""

    name: str
    annotation: Any
    required: bool = True
    default: Any = MISSING
    description: str = ""


def is_typed_dict(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__required_keys__")


def is_named_tuple(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def is_pydantic(kind: Any) -> bool:
    pydantic = sys.modules.get("pydantic")  # a model of it can only be met when its author imported it
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def has_fields(kind: Any) -> bool:
    return (dataclasses.is_dataclass(kind) and isinstance(kind, type)) or is_typed_dict(kind) or is_named_tuple(kind)


def is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def fields_of(kind: Any, local: Mapping[str, Any] | None = None) -> tuple[Field, ...]:
    """The members of a dataclass (those that its constructor takes), TypedDict or named tuple.

    Raises:
        UndescribableError: a forward reference leads nowhere.
    """
    try:
        hints = typing.get_type_hints(kind, localns={**(local or {}), kind.__name__: kind}, include_extras=True)
    except (NameError, TypeError) as e:
        raise UndescribableError(f"the hints of {kind.__name__} cannot be read ({e})") from None
    # A dataclass without a docstring gets its signature as one.
    text = kind.__doc__ or ""
    docs = {} if text.startswith(f"{kind.__name__}(") else parse_docstring(inspect.cleandoc(text)).parameters
    found = []
    for name, required, default in _members(kind, hints):
        annotation = hints[name]
        while typing.get_origin(annotation) in (typing.Required, typing.NotRequired):
            required = typing.get_origin(annotation) is typing.Required
            annotation = typing.get_args(annotation)[0]
        found.append(Field(name, annotation, required, default, docs.get(name, "")))
    return tuple(found)


def _members(kind: Any, hints: Mapping[str, Any]) -> Iterator[tuple[str, bool, Any]]:
    if dataclasses.is_dataclass(kind):
        for f in dataclasses.fields(kind):
            if f.init:
                made = f.default_factory is not dataclasses.MISSING
                required = f.default is dataclasses.MISSING and not made
                yield f.name, required, MISSING if required or made else f.default
    elif is_typed_dict(kind):
        for name in hints:
            yield name, name in kind.__required_keys__, MISSING
    else:
        for name in kind._fields:
            given = name in kind._field_defaults
            yield name, not given, kind._field_defaults.get(name, MISSING)


def json_default(value: Any) -> Any:
    """A default as a JSON value, MISSING where it has none (the parameter is optional all the same)."""
    if isinstance(value, enum.Enum):
        value = enum_value(value)
    elif form := form_of(type(value)):
        value = form.write(value)
    try:
        return json.loads(json.dumps(value, allow_nan=False)) if value is not MISSING else MISSING
    except (TypeError, ValueError, RecursionError):
        return MISSING


def plain_choice(choice: Any) -> Any:
    """What stands for one of the values of a ``Literal`` in JSON."""
    return enum_value(choice) if isinstance(choice, enum.Enum) else choice


def enum_value(member: enum.Enum) -> Any:
    """What stands for a member in JSON: its value where all values are texts or numbers, else its name."""
    plain = all(isinstance(m.value, str | int) and not isinstance(m.value, bool) for m in type(member))
    return member.value if plain else member.name


class SchemaMaker:
    """Makes schemas of types and gathers the definitions of those that contain themselves.

    Args:
        local: names that forward references may use besides those of their modules.
    """

    def __init__(self, local: Mapping[str, Any] | None = None) -> None:
        self.definitions: dict[str, Schema] = {}
        self._local = dict(local or {})
        self._names: dict[Any, str] = {}
        self._open: list[Any] = []

    def object_of(self, fields: Sequence[Field]) -> Schema:
        """Schema of an object with these members."""
        properties = {f.name: self._property(f) for f in fields}
        schema: Schema = {"type": "object", "properties": properties}
        if required := [f.name for f in fields if f.required]:
            schema["required"] = required
        return schema

    def _property(self, field: Field) -> Schema:
        annotation = field.annotation
        if field.default is None:
            annotation = without_none(annotation)  # to leave it out says the same in fewer tokens
        try:
            schema = self.of(annotation)
        except UndescribableError as e:
            raise UndescribableError(f"{field.name!r}: {e}" if self._open else str(e), field.name) from None
        if field.description:
            schema = {**schema, "description": schema.get("description") or field.description}
        default = json_default(field.default)
        if default is not MISSING and default is not None:
            schema = {**schema, "default": default}
        return schema

    def of(self, annotation: Any) -> Schema:
        """Schema of one type. Raises UndescribableError."""
        if annotation is Any or annotation is object:
            return {}
        if annotation is None or annotation is type(None):
            return {"type": "null"}
        if isinstance(annotation, type) and annotation in SCALARS:
            return {"type": SCALARS[annotation]}
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            return _choice([enum_value(m) for m in annotation])
        if form := form_of(annotation):
            return dict(form.schema)
        if is_pydantic(annotation):
            return self._pydantic(annotation)
        if has_fields(annotation):
            return self._named(annotation)
        return self._generic(annotation)

    def _generic(self, annotation: Any) -> Schema:
        origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
        if origin is typing.Annotated:
            return self._annotated(arguments[0], arguments[1:])
        if origin is typing.Literal:
            return _choice([plain_choice(a) for a in arguments])
        if is_union(annotation):
            return self._union(arguments)
        if type(origin).__name__ == "TypeAliasType":  # ``type X = ...`` of Python 3.12
            return self.of(origin.__value__)
        if isinstance(annotation, typing.NewType):
            return self.of(annotation.__supertype__)
        if origin in LISTS:
            return {"type": "array", **self._items(arguments)}
        if origin in SETS:
            return {"type": "array", **self._items(arguments), "uniqueItems": True}
        if origin is tuple:
            return self._tuple(arguments)
        if origin in MAPS:
            return self._map(arguments)
        raise UndescribableError(
            f"the type {_named(annotation)} has no JSON form; use str, int, float, bool, a list or a dataclass"
        )

    def _items(self, arguments: Sequence[Any]) -> Schema:
        items = self.of(arguments[0]) if arguments else {}
        return {"items": items} if items else {}

    def _tuple(self, arguments: Sequence[Any]) -> Schema:
        if not arguments:
            return {"type": "array"}
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return {"type": "array", **self._items(arguments)}
        items = [self.of(a) for a in arguments if a != ()]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items), "maxItems": len(items)}

    def _map(self, arguments: Sequence[Any]) -> Schema:
        if not arguments:
            return {"type": "object"}
        key, value = arguments
        if key is not str:
            raise UndescribableError(f"a dictionary's keys are {_named(key)}; JSON has only text as keys, use dict[str, ...]")
        values = self.of(value)
        return {"type": "object", "additionalProperties": values or True}

    def _union(self, arguments: Sequence[Any]) -> Schema:
        choices: list[Schema] = []
        for argument in arguments:
            choice = self.of(argument)
            if choice not in choices:
                choices.append(choice)
        return choices[0] if len(choices) == 1 else {"anyOf": choices}

    def _annotated(self, annotation: Any, marks: Sequence[Any]) -> Schema:
        schema = self.of(annotation)
        for mark in marks:
            if isinstance(mark, str):
                schema = {**schema, "description": " ".join(mark.split())}
            else:
                schema = {**schema, **_bounds(mark, schema)}
        return schema

    def _named(self, kind: type) -> Schema:
        if kind in self._open or kind in self._names:
            return {"$ref": f"#/$defs/{self._name(kind)}"}
        self._open.append(kind)
        try:
            schema = self.object_of(fields_of(kind, self._local))
        finally:
            self._open.pop()
        if kind not in self._names:
            return schema
        self.definitions[self._names[kind]] = schema
        return {"$ref": f"#/$defs/{self._names[kind]}"}

    def _name(self, kind: type) -> str:
        if kind not in self._names:
            name, taken = kind.__name__, {*self._names.values(), *self.definitions}
            self._names[kind] = name if name not in taken else f"{name}{len(taken) + 1}"
        return self._names[kind]

    def _pydantic(self, model: Any) -> Schema:
        schema: Schema = _without_titles(model.model_json_schema())
        self.definitions.update(schema.pop("$defs", {}))
        return schema


def without_none(annotation: Any) -> Any:
    """``X`` for ``X | None``; anything else as it is."""
    if not is_union(annotation):
        return annotation
    rest = tuple(a for a in typing.get_args(annotation) if a is not type(None))
    return typing.Union[rest] if rest else annotation  # noqa: UP007  (made from a tuple)


def marks_of(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type below ``Annotated`` and its marks."""
    if typing.get_origin(annotation) is typing.Annotated:
        inner, *marks = typing.get_args(annotation)
        return inner, tuple(marks)
    return annotation, ()


_NUMBER_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def _bounds(mark: Any, schema: Schema) -> Schema:
    found: Schema = {}
    kind = schema.get("type")
    for source in (mark, *getattr(mark, "metadata", ())):
        for name, key in _NUMBER_BOUNDS.items():
            if isinstance(value := getattr(source, name, None), int | float | Decimal):
                found[key] = write_decimal(value) if isinstance(value, Decimal) else value
        for name, end in (("min_length", "min"), ("max_length", "max")):
            if isinstance(value := getattr(source, name, None), int):
                if "contentEncoding" in schema:  # four characters of base64 for three bytes
                    value = -(-value // 3) * 4
                found[end + ("Length" if kind == "string" else "Items")] = value
        pattern = getattr(source, "pattern", None)
        if isinstance(pattern, str) and kind == "string":
            found["pattern"] = pattern if pattern.startswith("^") and pattern.endswith("$") else f"^(?:{pattern})$"
    if isinstance(said := getattr(mark, "description", None), str):
        found["description"] = said
    return found


def _choice(values: list[Any]) -> Schema:
    kinds = {"null" if v is None else SCALARS.get(type(v)) for v in values}
    if None in kinds or not values:
        raise UndescribableError("a choice must be among texts, numbers, truth values and None")
    return {"type": kinds.pop(), "enum": values} if len(kinds) == 1 else {"enum": values}


def _without_titles(schema: Any, inside_properties: bool = False) -> Any:
    if isinstance(schema, dict):
        return {
            key: _without_titles(value, key in ("properties", "$defs") and not inside_properties)
            for key, value in schema.items()
            if inside_properties or key != "title"
        }
    return [_without_titles(item) for item in schema] if isinstance(schema, list) else schema


def _named(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
