"""Tools that a dictionary declares: which forms are read, what runs them, and the one line that says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from agent.messages import ToolSpec
from agent.tools.define import as_tool, tool
from agent.tools.result import ToolContext, ToolDefinitionError

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SPEC = ToolSpec("weather", "The weather of a place.", SCHEMA)
BARE = {"name": "weather", "description": "The weather of a place."}
FORMS: dict[str, Mapping[str, Any]] = {
    "chat completions": {"type": "function", "function": {**BARE, "parameters": SCHEMA, "strict": True}},
    "responses": {"type": "function", **BARE, "parameters": SCHEMA, "strict": True},
    "anthropic": {**BARE, "input_schema": SCHEMA},
    "anthropic with a type": {"type": "custom", **BARE, "input_schema": SCHEMA},
    "mcp": {**BARE, "inputSchema": SCHEMA},
    "bare": {**BARE, "parameters": SCHEMA},
}


def weather(city: str) -> str:
    return f"rain in {city}"


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_say_the_same(form: str) -> None:
    alone = as_tool(FORMS[form])
    assert alone.spec == SPEC
    assert alone.deferred
    assert "whoever started the run answers" in alone.invoke({"city": "Bern"}).text
    paired = as_tool((FORMS[form], weather))
    assert (paired.spec, paired.deferred) == (SPEC, False)
    assert paired.invoke({"city": "Bern"}).text == "rain in Bern"


def test_what_runs_it_may_stand_in_the_dictionary() -> None:
    declared = as_tool({**BARE, "parameters": SCHEMA, "function": weather})
    assert declared.spec == SPEC
    assert declared.invoke({"city": "Bern"}).text == "rain in Bern"


def test_the_function_gets_the_values_as_they_are_and_the_context() -> None:
    async def look(when: Any, context: ToolContext) -> str:
        return f"{when!r} {context.call_id}"

    given = {"name": "look", "parameters": {"type": "object", "properties": {"when": {"type": "string", "format": "date"}}}}
    assert as_tool((given, look)).invoke({"when": "2026-03-01"}, ToolContext(call_id="abc")).text == "'2026-03-01' abc"


def test_a_tool_beside_a_dictionary_keeps_all_but_what_the_model_is_told() -> None:
    mine = tool(timeout=5, approval="ask")(weather)
    declared = as_tool((FORMS["bare"], mine))
    assert (declared.spec, declared.timeout, declared.approval) == (SPEC, 5, "ask")


def test_without_parameters_it_takes_none() -> None:
    assert as_tool({"name": "now"}).spec == ToolSpec("now", "", {"type": "object", "properties": {}})
    given: dict[str, Any] = {"type": "function", "function": {"name": "now", "description": None, "parameters": None}}
    assert as_tool(given).spec == as_tool({"name": "now"}).spec


def test_the_script_may_change_its_dictionary_afterwards() -> None:
    given = json.loads(json.dumps(FORMS["bare"]))
    made = as_tool(given)
    given["parameters"]["properties"].clear()
    assert made.spec == SPEC


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "has no name; write {"),
        ({"type": "function", "function": {}}, "has no name"),
        ({"type": "function", "function": {"name": 5}}, "has the name 5, which is no text"),
        ({"type": "web_search_preview"}, "of the type 'web_search_preview' belongs to a service"),
        ({"name": "a b"}, "cannot be called 'a b'"),
        ({"name": "a", "parameters": []}, "'a': the parameters are []"),
        ({"name": "a", "parameters": {"type": "string"}}, "write the JSON Schema of an object"),
        ({"name": "a", "parameters": {"properties": {"x": {1, 2}}}}, "are no JSON"),
        ({"name": "a", "description": ["x"]}, "the description is ['x'] and must be a text"),
        ({"name": "a", "function": "weather"}, "the function is 'weather'"),
        (({"name": "a"}, "weather"), "is no tool"),
    ],
)
def test_what_is_wrong_is_one_line(given: Any, said: str) -> None:
    with pytest.raises(ToolDefinitionError) as e:
        as_tool(given)
    assert said in str(e.value)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 400
