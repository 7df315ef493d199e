"""JSON values on their way into the Python types that a tool's function asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.tools.convert import convert_fields
from agent.tools.define import as_tool, tool
from agent.tools.result import ToolError
from agent.tools.schema import Bounds, Field
from tests.agent.tools.test_tool import Colour, Mode, Place, Plant, Point, Spot
from tests.fixtures.generated import runs


@dataclass
class Tree:
    value: int
    left: Tree | None = None
    others: list[Tree] = field(default_factory=list)


def received(annotation: Any, value: Any) -> Any:
    """What a function with one parameter of this type gets for a JSON value, or the refusal's text."""
    got: list[Any] = []

    def f(x: Any) -> None:
        got.append(x)

    f.__annotations__["x"] = annotation
    result = as_tool(f).invoke({"x": value})
    return got[0] if result.ok else result.text


@pytest.mark.parametrize(
    ("annotation", "value", "made"),
    [
        (int, 5, 5), (int, 5.0, 5), (int, "5", 5), (float, 5, 5.0), (float, "5.5", 5.5), (bool, True, True),
        (bool, "false", False),
        (str, "x", "x"), (str, 5, "5"), (Colour, "blue", Colour.BLUE), (Colour, "BLUE", Colour.BLUE), (Mode, "SLOW", Mode.SLOW),
        (Literal[1, 2], 2, 2), (Literal[1, 2], "2", 2), (Literal["a"], "A", "a"), (int | str, "5", "5"), (int | str, 5, 5),
        (int | None, None, None), (list[int], ["1", 2], [1, 2]), (set[int], [1, 1, 2], {1, 2}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (frozenset[str], ["a"], frozenset({"a"})), (dict[str, int], {"a": "1"}, {"a": 1}), (Path, "a/b", Path("a/b")),
        (date, "2026-03-01", date(2026, 3, 1)), (datetime, "2026-03-01T12:30:00", datetime(2026, 3, 1, 12, 30)),
        (Plant, {"name": "rose", "colours": ["red"]}, Plant("rose", 0.5, [Colour.RED])), (Point, {"x": 1}, Point(1, 0)),
        (Place, {"city": "Ulm"}, {"city": "Ulm"}), (list[Plant], [{"name": "a"}], [Plant("a")]), (Any, {"q": [1]}, {"q": [1]}),
        (Annotated[int, Bounds(ge=1)], 1, 1), (int | Plant, {"name": "x"}, Plant("x")),
    ],
)  # fmt: skip
def test_json_values_become_what_the_hints_say(annotation: Any, value: Any, made: Any) -> None:
    got = received(annotation, value)
    assert got == made
    assert type(got) is type(made)


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        (int, 5.5, "whole number"), (int, "five", "whole number"), (int, True, "whole number"), (int, None, "whole number"),
        (float, "1e9999999", "a number"), (float, [], "a number"), (bool, 1, "true or false"), (str, None, "a text"),
        (str, ["a"], "a text"),
        (Colour, "green", "one of 'red', 'blue'"), (Literal[1, 2], True, "one of 1, 2"), (list[int], 5, "a list"),
        (list[int], ["x"], "x[0]"),
        (tuple[int, int], [1], "2 items"), (dict[str, int], [], "an object"), (date, "tomorrow", "2026-03-01"),
        (Path, 5, "a path"),
        (Plant, {"height": 1}, "missing member 'name'"), (Plant, {"name": "a", "wings": 2}, "unknown member 'wings'"),
        (Plant, "rose", "an object"),
        (Plant, {"name": "a", "colours": ["x"]}, "x.colours[0]"), (int | None, "x", "whole number"),
        (Annotated[int, Bounds(ge=1)], 0, "at least 1"),
        (Annotated[float, Bounds(lt=1)], 1, "less than 1"), (Annotated[str, Bounds(pattern="a+")], "b", "must match"),
        (Annotated[str, Bounds(max_length=1)], "ab", "at most 1 characters"), (set[Any], [[1]], "plain values"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_to_the_model_in_one_line(annotation: Any, value: Any, said: str) -> None:
    text = received(annotation, value)
    assert isinstance(text, str)
    assert said in text
    assert "\n" not in text
    assert text.startswith("x")


def test_missing_and_unknown_arguments() -> None:
    @tool
    def f(a: int, b: int = 2, c: int | None = None) -> str:
        return f"{a} {b} {c}"

    assert f.invoke({}).text == "missing argument 'a'"
    assert f.invoke({"a": 1, "z": 2}).text == "unknown argument 'z': the arguments are a, b, c"
    assert f.invoke({"a": 1, "c": None}).text == "1 2 None"
    assert f.invoke({"a": 1, "c": 3}).text == "1 2 3"


def test_a_value_nested_without_end_is_a_refusal() -> None:
    deep: Any = {"value": 0}
    for _ in range(5000):
        deep = {"value": 0, "left": deep}

    @tool
    def f(tree: Tree) -> str:
        return "got it"

    result = f.invoke({"tree": deep})
    assert not result.ok
    assert result.text == "argument 'tree' is nested too deeply"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KINDS = [
    int,
    float,
    str,
    bool,
    Colour,
    Plant,
    Tree,
    Spot,
    Point,
    list[int],
    set[str],
    tuple[int, str],
    dict[str, Plant],
    int | Plant | None,
]


@settings(max_examples=runs(150), derandomize=True, deadline=None, database=None)
@given(JSON, st.sampled_from(KINDS))
def test_no_json_value_raises(value: Any, kind: Any) -> None:
    refusal = "x"
    try:
        convert_fields({"x": value}, [Field("x", kind)], {})
    except ToolError as e:
        refusal = str(e)
    assert refusal.startswith(("x", "argument 'x'"))
