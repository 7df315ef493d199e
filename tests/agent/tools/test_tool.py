"""A function becomes a tool: its schema, what is refused, and JSON values on their way into Python types."""

from __future__ import annotations

import enum
import functools
import json
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Required, TypedDict
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.messages import ToolSpec
from agent.tools.define import Tool, as_tool, tool
from agent.tools.docstring import parse_docstring
from agent.tools.result import ToolContext, ToolDefinitionError, ToolResult
from agent.tools.schema import Bounds
from tests.fixtures.generated import runs


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Mode(enum.Enum):
    FAST = (1, 2)
    SLOW = (3, 4)


@dataclass
class Plant:
    """A plant.

    Attributes:
        name: what it is called
    """

    name: str
    height: float = 0.5
    colours: list[Colour] = field(default_factory=list)


@dataclass
class Tree:
    value: int
    left: Tree | None = None
    others: list[Tree] = field(default_factory=list)


class Spot(TypedDict, total=False):
    row: Required[int]
    column: int


class Place(TypedDict):
    city: str
    zip: NotRequired[str]


class Point(NamedTuple):
    x: int
    y: int = 0


INT = {"type": "integer"}


def parameters(thing: Tool) -> dict[str, Any]:
    json.dumps(thing.spec.parameters)
    return dict(thing.spec.parameters)


def schema_of(annotation: Any, default: Any = ...) -> dict[str, Any]:
    def f(x: Any) -> None: ...

    f.__annotations__["x"] = annotation
    if default is not ...:
        f.__defaults__ = (default,)
    found: dict[str, Any] = parameters(as_tool(f))["properties"]["x"]
    return found


def test_the_readmes_tool() -> None:
    @tool
    def water(bed: int, seconds: int = 30) -> str:
        """Open the valve of a garden bed.

        Args:
            bed: number of the bed, 1 to 4
            seconds: how long
        """
        return f"bed {bed} for {seconds} s"

    assert water(2, 30) == "bed 2 for 30 s"
    assert water.spec == ToolSpec(
        "water",
        "Open the valve of a garden bed.",
        {
            "type": "object",
            "properties": {
                "bed": {"type": "integer", "description": "number of the bed, 1 to 4"},
                "seconds": {"type": "integer", "description": "how long", "default": 30},
            },
            "required": ["bed"],
        },
    )
    result = water.invoke({"bed": 3})
    assert (result.ok, result.text, result.cut) == (True, "bed 3 for 30 s", 0)
    assert (water.name, water.__doc__) == ("water", water.function.__doc__)


DOCSTRINGS = {
    "google": """Water it.

    More words
    on two lines.

    Args:
        bed (int): the bed,
            counted from 1
        how: slow: or fast

    Returns:
        bed: not this one
    """,
    "numpy": """Water it.

    More words
    on two lines.

    Parameters
    ----------
    bed : int, optional
        the bed,
        counted from 1
    how : str
        slow: or fast

    Returns
    -------
    str
        not this one
    """,
    "sphinx": """Water it.

    More words
    on two lines.

    :param int bed: the bed,
        counted from 1
    :param how: slow: or fast
    :type how: str
    :returns: not this one
    :raises ValueError: nor this
    """,
}


@pytest.mark.parametrize("style", DOCSTRINGS)
def test_three_styles_of_docstrings_say_the_same(style: str) -> None:
    doc = parse_docstring(DOCSTRINGS[style])
    assert doc.summary == "Water it.\nMore words on two lines."
    assert doc.parameters == {"bed": "the bed, counted from 1", "how": "slow: or fast"}


@pytest.mark.parametrize(
    ("text", "summary", "names"),
    [
        (None, "", set()),
        ("", "", set()),
        ("Only this", "Only this", set()),
        ("One.\n\nArgs:\n    a: b", "One.", {"a"}),
        ("Args:\n    a: b", "", {"a"}),
        ("One.\n\nParameters\n----------\nx, y : int\n    both\n", "One.", {"x", "y"}),
        ("One.\n\nArgs:\n    *rest: b\n\n    c: d\n", "One.", {"rest", "c"}),
        ("Note: this is no section\nArgs: nor this", "Note: this is no section Args: nor this", set()),
        ("Say :param x: inline", "Say :param x: inline", set()),
    ],
)
def test_odd_docstrings(text: str | None, summary: str, names: set[str]) -> None:
    doc = parse_docstring(text)
    assert doc.summary == summary
    assert set(doc.parameters) == names


@settings(max_examples=runs(150), derandomize=True, deadline=None, database=None)
@given(st.text(st.sampled_from("abAr gs:\n -_=.*()paramReturns"), max_size=120))
def test_no_docstring_breaks_the_parser(text: str) -> None:
    doc = parse_docstring(text)
    assert all("\n" not in said for said in doc.parameters.values())


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (Any, {}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal[1, "b"], {"enum": [1, "b"]}),
        (Colour, {"type": "string", "enum": ["red", "blue"]}),
        (Mode, {"type": "string", "enum": ["FAST", "SLOW"]}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (typing.Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),  # noqa: UP007
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (list, {"type": "array"}),
        (set[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (
            tuple[int, str],
            {"type": "array", "prefixItems": [INT, {"type": "string"}], "items": False, "minItems": 2, "maxItems": 2},
        ),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (dict, {"type": "object"}),
        (Path, {"type": "string"}),
        (datetime, {"type": "string", "format": "date-time"}),
        (date, {"type": "string", "format": "date"}),
        (UUID, {"type": "string", "format": "uuid"}),
        (Annotated[int, "how many"], {"type": "integer", "description": "how many"}),
        (Annotated[int, Bounds(ge=1, le=4)], {"type": "integer", "minimum": 1, "maximum": 4}),
        (Annotated[str, Bounds(max_length=5, pattern="a+")], {"type": "string", "maxLength": 5, "pattern": "^(?:a+)$"}),
        (Annotated[list[int], Bounds(min_length=1)], {"type": "array", "items": {"type": "integer"}, "minItems": 1}),
        (
            Plant,
            {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "description": "what it is called"},
                    "height": {"type": "number", "default": 0.5},
                    "colours": {"type": "array", "items": {"type": "string", "enum": ["red", "blue"]}},
                },
                "required": ["name"],
            },
        ),
        (Spot, {"type": "object", "properties": {"row": INT, "column": INT}, "required": ["row"]}),
        (Place, {"type": "object", "properties": {"city": {"type": "string"}, "zip": {"type": "string"}}, "required": ["city"]}),
        (Point, {"type": "object", "properties": {"x": INT, "y": {"type": "integer", "default": 0}}, "required": ["x"]}),
    ],
)  # fmt: skip
def test_types_and_their_schemas(annotation: Any, schema: dict[str, Any]) -> None:
    assert schema_of(annotation) == schema


def test_none_as_default_only_makes_it_optional() -> None:
    assert schema_of(int | None, None) == {"type": "integer"}
    assert schema_of(Colour, Colour.RED) == {"type": "string", "enum": ["red", "blue"], "default": "red"}
    assert schema_of(Any, object()) == {}


def test_a_type_that_contains_itself_is_defined_once() -> None:
    @tool
    def grow(tree: Tree, second: Tree | None = None) -> int:
        return tree.value + sum(t.value for t in tree.others)

    found = parameters(grow)
    assert found["properties"]["tree"] == {"$ref": "#/$defs/Tree"} == found["properties"]["second"]
    assert found["$defs"]["Tree"]["properties"]["left"] == {"$ref": "#/$defs/Tree"}
    assert found["$defs"]["Tree"]["required"] == ["value"]
    assert grow.invoke({"tree": {"value": 1, "others": [{"value": 2}, {"value": 3, "left": {"value": 9}}]}}).text == "6"


def test_types_of_the_function_that_defines_the_tool_are_found() -> None:
    @dataclass
    class Inner:
        n: int

    @tool
    def f(inner: Inner, many: list[Inner]) -> int:
        return inner.n + many[0].n

    assert f.invoke({"inner": {"n": 1}, "many": [{"n": 2}]}).text == "3"


def no_hint(a: int, b, c: str) -> None: ...  # type: ignore[no-untyped-def]
def stars(a: int, *rest: int) -> None: ...
def keywords(**options: int) -> None: ...
def positional(a: int, /) -> None: ...
def unsupported(a: complex) -> None: ...
def nested(a: list[dict[int, str]]) -> None: ...
def callback(a: Callable[[], int]) -> None: ...
def unknown_name(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@dataclass
class Bad:
    inner: complex


def bad_member(a: Bad) -> None: ...


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (no_hint, ["no_hint", "'b'", "no type hint", "write b: str"]),
        (stars, ["stars", "'rest'", "*rest", "take a list"]),
        (keywords, ["keywords", "'options'", "**options"]),
        (positional, ["positional", "'a'", "remove the /"]),
        (unsupported, ["unsupported", "'a'", "complex", "use str"]),
        (nested, ["nested", "'a'", "keys are int", "dict[str, ...]"]),
        (callback, ["callback", "'a'", "no JSON form"]),
        (unknown_name, ["unknown_name", "Nowhere", "import"]),
        (bad_member, ["bad_member", "'a'", "'inner'", "complex"]),
        (lambda: None, ["<lambda>", "name=..."]),
        (Plant, ["is no tool"]),
        ("water", ["is no tool"]),
    ],
)
def test_what_cannot_be_described_is_refused_where_it_is_defined(function: Any, words: list[str]) -> None:
    with pytest.raises(ToolDefinitionError) as e:
        as_tool(function)
    said = str(e.value)
    assert "\n" not in said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    "settings_",
    [{"name": "no spaces"}, {"name": "x" * 65}, {"name": ""}, {"timeout": 0}, {"timeout": -1.0}, {"approval": "maybe"}],
)
def test_settings_that_mean_nothing_are_refused(settings_: dict[str, Any]) -> None:
    def f(a: int) -> None: ...

    if settings_ == {"name": ""}:
        assert tool(**settings_)(f).name == "f"
        return
    with pytest.raises(ToolDefinitionError):
        tool(**settings_)(f)


def test_settings_reach_the_tool() -> None:
    @tool(name="other-name", description="Said here.", timeout=None, approval="ask", isolate=True)
    def f(a: int) -> int:
        """Said there."""
        return a

    assert (f.name, f.spec.description, f.timeout, f.approval, f.isolate) == ("other-name", "Said here.", None, "ask", True)


class Valve:
    """A valve."""

    def __init__(self, number: int) -> None:
        self.number = number

    @tool
    def open(self, seconds: int) -> str:
        """Open it."""
        return f"{self.number}:{seconds}"

    def close(self, hard: bool = False) -> str:
        """Close it."""
        return f"{self.number} closed {hard}"

    def __call__(self, seconds: float) -> str:
        """Use it."""
        return f"{self.number} used {seconds}"

    @classmethod
    def make(cls, n: int) -> int:
        return n

    @staticmethod
    def find(n: int) -> int:
        return n


def test_methods_callables_and_partials() -> None:
    valve = Valve(7)
    assert valve.open(3) == "7:3"
    assert valve.open.invoke({"seconds": 3}).text == "7:3"
    assert list(parameters(valve.open)["properties"]) == ["seconds"]
    assert "through an instance" in Valve.open.invoke({"seconds": 3}).text
    assert as_tool(valve.close).invoke({"hard": True}).text == "7 closed True"
    used = as_tool(valve)
    assert (used.name, used.spec.description) == ("Valve", "Use it.")
    assert used.invoke({"seconds": 2}).text == "7 used 2.0"
    assert as_tool(Valve.make).invoke({"n": 4}).text == "4"
    assert as_tool(Valve.find).invoke({"n": 5}).text == "5"
    part = as_tool(functools.partial(as_tool(valve.close).function))
    assert part.name == "close"
    assert as_tool(used) is used


def test_the_context_is_handed_in_and_not_shown() -> None:
    @tool
    def f(a: int, context: ToolContext) -> str:
        return f"{a} {context.call_id}"

    assert list(parameters(f)["properties"]) == ["a"]
    assert f.invoke({"a": 1}, ToolContext(call_id="abc")).text == "1 abc"
    assert "unknown argument 'context'" in f.invoke({"a": 1, "context": 2}).text


def test_pydantic_models_where_pydantic_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the two methods that are used: pydantic is not part of what a device installs."""

    class BaseModel:
        @classmethod
        def model_json_schema(cls) -> dict[str, Any]:
            return {
                "title": "Order",
                "type": "object",
                "properties": {"title": {"title": "Title", "type": "string"}, "line": {"$ref": "#/$defs/Line"}},
                "required": ["title"],
                "$defs": {"Line": {"title": "Line", "type": "object", "properties": {}}},
            }

        @classmethod
        def model_validate(cls, value: Any) -> BaseModel:
            if "title" not in value:
                raise ValueError("1 validation error for Order\ntitle\n  Field required")
            made = cls()
            made.__dict__.update(value)
            return made

        def model_dump(self, mode: str) -> dict[str, Any]:
            return dict(self.__dict__)

    module = types.ModuleType("pydantic")
    module.BaseModel = BaseModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pydantic", module)

    class Order(BaseModel): ...

    @tool
    def buy(order: Order) -> Order:
        return order

    found = parameters(buy)
    assert found["properties"]["order"]["properties"]["title"] == {"type": "string"}
    assert found["$defs"] == {"Line": {"type": "object", "properties": {}}}
    assert buy.invoke({"order": {"title": "x"}}).text == '{"title":"x"}'
    assert buy.invoke({"order": {}}).text == "order: 1 validation error for Order title Field required"


def test_a_tool_from_elsewhere_gets_the_values_as_they_are() -> None:
    seen: list[Any] = []

    def call(arguments: Any, context: ToolContext) -> ToolResult:
        seen.append((arguments, context.call_id))
        return ToolResult(True, "a\x1b[31mb")

    made = Tool.from_spec(ToolSpec("srv_find", "Finds.", {"type": "object"}), call)
    assert (made.approval, made.origin) == ("ask", "mcp")
    assert made.invoke({"q": [1, {"a": None}]}, ToolContext(call_id="c")).text == "ab"
    assert seen == [({"q": [1, {"a": None}]}, "c")]
