"""Tools that a dictionary declares, in a run: those with a function run here, and the script answers the others."""

from __future__ import annotations

from typing import Any

import pytest

from agent import events as e
from agent.approval.policy import Policy, Rule
from agent.errors import SprigError
from tests.fixtures.fake_engine import call_text
from tests.fixtures.scripted import RAIN, Make, roles, weather

pytestmark = pytest.mark.usefixtures("module_home")

PING: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "ping",
        "description": "Ask a machine.",
        "parameters": {"type": "object", "properties": {"host": {"type": "string"}}, "required": ["host"]},
    },
}
CALL = call_text("ping", {"host": "pi"})


def test_a_dictionary_with_a_function_runs(make: Make) -> None:
    agent, engine = make(CALL, "It is there.", tools=[(PING, lambda host: f"{host} answers")])
    result = agent.run("Is pi there?")
    assert (result.reason, result.text) == ("done", "It is there.")
    assert [c.text for c in result.calls] == ["pi answers"]
    assert "pi answers" in engine.asked[1]


def test_a_call_of_a_dictionary_alone_ends_the_run_with_the_call_open(make: Make) -> None:
    agent, engine = make("Let me ask.\n" + CALL, tools=[PING])
    events = list(agent.stream("Is pi there?"))
    done = events[-1]
    assert isinstance(done, e.Done)
    result = done.result
    assert (result.reason, result.error) == ("call", "")
    (open_call,) = result.calls
    assert (open_call.call.name, dict(open_call.call.arguments), open_call.answered) == ("ping", {"host": "pi"}, False)
    assert roles(result.messages) == ["user", "assistant"]
    assert not any(isinstance(event, e.ToolDone | e.CallRefused) for event in events)
    assert [event.call for event in events if isinstance(event, e.CallReady)] == [open_call.call]
    assert len(engine.asked) == 1


def test_what_can_run_runs_before_the_run_ends(make: Make) -> None:
    agent, _ = make(CALL + "\n" + RAIN, tools=[weather, PING])
    result = agent.run("Rain?")
    assert result.reason == "call"
    assert [(c.call.name, c.answered, c.text) for c in result.calls] == [
        ("ping", False, ""), ("weather", True, "rain in Bern for 1"),
    ]  # fmt: skip
    assert roles(result.messages) == ["user", "assistant", "tool"]


def test_a_call_that_does_not_fit_is_told_to_the_model_and_not_to_the_script(make: Make) -> None:
    agent, engine = make(call_text("ping", {"host": 5}), CALL, tools=[PING])
    result = agent.run("Is pi there?")
    assert result.reason == "call"
    assert "host is 5; it must be string" in engine.asked[1]
    assert [dict(c.call.arguments) for c in result.calls] == [{"host": "pi"}]


def test_a_rule_against_the_tool_holds(make: Make) -> None:
    agent, engine = make(CALL, "I may not.", tools=[PING], policy=Policy([Rule("deny", "ping")]))
    result = agent.run("Is pi there?")
    assert (result.reason, result.calls) == ("done", ())
    assert "not allowed" in engine.asked[1]


def test_a_wrong_dictionary_is_one_line(make: Make) -> None:
    with pytest.raises(SprigError, match="has no name; write"):
        make(tools=[{"type": "function", "function": {"title": "ping"}}])


def test_the_script_hands_in_the_result(make: Make) -> None:
    agent, engine = make(CALL, "It is there.", tools=[PING])
    asked = agent.run("Is pi there?").calls[0].call
    answer = agent.run([{"role": "tool", "tool_call_id": asked.id, "content": "pi answers"}])
    assert answer.text == "It is there."
    assert "pi answers" in engine.asked[1]
    engine.only_grows()


def test_a_result_is_handed_in_beside_that_of_a_tool_which_ran(make: Make) -> None:
    agent, engine = make(CALL + "\n" + RAIN, "Both.", tools=[weather, PING])
    result = agent.run("Is pi there, and will it rain?")
    open_call = next(done.call for done in result.calls if not done.answered)
    assert agent.run([{"role": "tool", "tool_call_id": open_call.id, "content": "pi answers"}]).text == "Both."
    engine.only_grows()


def test_another_question_leaves_the_call_without_a_result(make: Make) -> None:
    agent, engine = make(CALL, "Fine.", tools=[PING])
    agent.run("Is pi there?")
    agent.run("Never mind.")
    assert "interrupted" in engine.asked[1]
    engine.only_grows()
