"""An answer that is an object: by JSON Schema, dataclass, TypedDict or pydantic, alone or after tools."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import pytest

from agent import events as e
from agent.agent import Agent
from agent.errors import SchemaError
from agent.tools.define import tool
from agent.turn.output import Output
from tests.fixtures.fake_engine import FakeEngine, call_text

pytestmark = pytest.mark.usefixtures("module_home", "kept_templates")


@dataclass
class Pet:
    name: str
    legs: int
    kind: Literal["cat", "dog"] = "cat"


class Place(TypedDict):
    city: str
    days: int


SCHEMA = {
    "type": "object", "properties": {"name": {"type": "string"}, "legs": {"type": "integer", "minimum": 0}},
    "required": ["name", "legs"], "additionalProperties": False,
}  # fmt: skip


def test_a_mapping_is_the_schema_and_the_value_is_json() -> None:
    output = Output.of(SCHEMA)
    assert output.read('{"name": "Tom", "legs": 4}') == ({"name": "Tom", "legs": 4}, "")


def test_a_dataclass_comes_back_as_itself() -> None:
    value, wrong = Output.of(Pet).read('{"name": "Tom", "legs": 4, "kind": "dog"}')
    assert (value, wrong) == (Pet("Tom", 4, "dog"), "")
    assert Output.of(Pet).read('{"name": "Tom", "legs": 4}')[0] == Pet("Tom", 4)


def test_a_typed_dict_comes_back_as_a_dict() -> None:
    assert Output.of(Place).read('{"city": "Bern", "days": 2}') == ({"city": "Bern", "days": 2}, "")


def test_a_pydantic_model_comes_back_as_itself() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Inner(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        x: int

    class Outer(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        inner: Inner
        tags: list[str] = []

    value, wrong = Output.of(Outer).read('{"inner": {"x": 3}, "tags": ["a"]}')
    assert wrong == ""
    assert value == Outer(inner=Inner(x=3), tags=["a"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Tom has four legs", "is not JSON"),
        ('{"name": "Tom"}', "does not fit the schema"),
        ('{"name": "Tom", "legs": -1}', "does not fit the schema"),
        ('{"name": "Tom", "legs": 4, "tail": 1}', "does not fit the schema"),
        ("[" * 100_000, "is not JSON"),
        ("", "is not JSON"),
    ],
)
def test_what_does_not_fit_is_one_line(text: str, said: str) -> None:
    value, wrong = Output.of(SCHEMA).read(text)
    assert value is None
    assert said in wrong
    assert "\n" not in wrong


def test_a_check_of_the_class_itself_is_one_line() -> None:
    @dataclass
    class Even:
        n: int

        def __post_init__(self) -> None:
            if self.n % 2:
                raise ValueError("odd\nnumber")

    assert Output.of(Even).read('{"n": 2}')[0] == Even(2)
    value, wrong = Output.of(Even).read('{"n": 3}')
    assert value is None
    assert "cannot be converted" in wrong
    assert "\n" not in wrong


def test_what_cannot_be_described_is_refused() -> None:
    class Odd:
        def __init__(self, x) -> None:  # type: ignore[no-untyped-def]
            self.x = x

    with pytest.raises(SchemaError, match="cannot be described"):
        Output.of(Odd)


@tool
def legs(animal: str) -> int:
    """How many legs."""
    return 4


# "name" is how a call begins in some dialects, and a value may hold a mark of a call: an object is an object in all of them.
@pytest.mark.parametrize(
    "template",
    ["chatml", "hermes", "qwen3", "llama3", "lfm2", "gemma4", "ministral", "mistral-nemo", "minicpm5", "granite3", "phi4",
     "functionary-3.1", "functionary-3.2", "deepseek", "smollm3", "odd"],
)  # fmt: skip
@pytest.mark.parametrize("with_tools", [False, True], ids=["alone", "after tools"])
def test_the_answer_is_an_object_in_every_format(template: str, with_tools: bool) -> None:
    said = '{"name": "<tool_call>[TOOL_CALLS]>>>x\\n<function=", "legs": 4}'
    engine = FakeEngine(template=template)
    with Agent(engine, tools=[legs] if with_tools else []) as agent:
        started = "</think>\n\n" if agent.template.started({}) else ""
        words = "all\n" if template == "functionary-3.2" else ""
        engine.script = [*([started + words + "It has four."] if with_tools else []), started + said]
        result = agent.run("A pet?", schema=SCHEMA)
    assert (result.reason, result.error) == ("done", "")
    assert result.value == json.loads(said)
    assert json.loads(result.text) == result.value
    assert engine.jobs[-1]["constraint"]["schema"] == SCHEMA
    assert engine.jobs[-1]["constraint"]["tools"] == []
    assert "Answer with JSON that fits this schema" in engine.asked[-1]
    if with_tools:
        assert engine.jobs[0]["constraint"]["schema"] is None
        assert "fits this schema" not in engine.asked[0]
        engine.only_grows()


def test_an_object_after_a_tool_was_used() -> None:
    engine = FakeEngine([call_text("legs", {"animal": "cat"}), "Four.", '{"name": "Tom", "legs": 4}'])
    with Agent(engine, tools=[legs]) as agent:
        events = list(agent.stream("A cat?", schema=Pet))
    done = events[-1]
    assert isinstance(done, e.Done)
    assert done.result.value == Pet("Tom", 4)
    assert [c.data for c in done.result.calls] == [4]
    assert [m.role for m in done.result.messages] == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    engine.only_grows()


def test_without_tools_wanted_it_is_asked_for_at_once() -> None:
    engine = FakeEngine(['{"name": "Tom", "legs": 4}'])
    with Agent(engine, tools=[legs]) as agent:
        assert agent.run("A cat?", schema=SCHEMA, tool_choice="none").value == {"name": "Tom", "legs": 4}


@pytest.mark.parametrize("said", ["Tom", '{"name": "Tom", "le'])
def test_an_answer_that_is_no_such_object_is_an_error_with_its_text(said: str) -> None:
    engine = FakeEngine([said, "fine"])
    with Agent(engine) as agent:
        result = agent.run("A pet?", schema=SCHEMA)
        assert (result.reason, result.value, result.text) == ("error", None, said)
        assert "is not JSON" in result.error
        assert agent.run("Well?").text == "fine"


def test_a_result_as_json() -> None:
    engine = FakeEngine([call_text("legs", {"animal": "cat"}), "Four."])
    with Agent(engine, tools=[legs]) as agent:
        data: dict[str, Any] = agent.run("A cat?").to_dict()
    assert json.loads(json.dumps(data)) == data
    (call,) = data["calls"]
    assert call.pop("seconds") >= 0
    assert call == {"name": "legs", "arguments": {"animal": "cat"}, "ok": True, "result": "4"}
