"""What a script changes between two runs: it takes effect at the next one, or it cannot be changed; never is it ignored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.agent import Agent
from agent.approval.policy import Answer, Policy, Rule
from agent.engine.sampling import Sampling
from agent.errors import SprigError
from agent.limits import Limits
from agent.messages import Message
from agent.sessions.store import Store
from tests.fixtures.fake_engine import call_text, turn_text
from tests.fixtures.scripted import RAIN, Make, delete, roles, weather

pytestmark = pytest.mark.usefixtures("module_home")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "sessions.db") as opened:
        yield opened


def test_new_tools_and_another_system_prompt_are_told_at_the_next_run(make: Make) -> None:
    agent, engine = make("Hello.", RAIN, "It rains.", "Arr.", system="Be brief.")
    agent.run("Hi")
    agent.tools = [weather]
    result = agent.run("Rain?", tool_choice="weather")
    assert [call.text for call in result.calls] == ["rain in Bern for 1"]
    assert '"weather"' in engine.asked[1]
    assert '"weather"' not in engine.asked[0]
    assert "Hi" in engine.asked[1]
    assert "Hello.<|im_end|>" in engine.asked[1], "what was said stays"
    assert engine.jobs[1]["constraint"]["choice"] == "weather"
    agent.system, agent.tools = "You are a pirate.", ()
    agent.run("Well?")
    assert engine.asked[3].startswith("<|im_start|>system\nYou are a pirate.<|im_end|>\n<|im_start|>user\nHi<|im_end|>")
    assert "Be brief." not in engine.asked[3]
    assert "rain in Bern for 1" in engine.asked[3]
    assert [m.text for m in agent.messages if m.role == "system"] == ["You are a pirate."]
    assert roles(agent.messages) == ["system", "user", "assistant", "user", "assistant", "tool", "assistant", "user", "assistant"]


def test_what_stays_the_same_costs_nothing(make: Make) -> None:
    agent, engine = make("one", "two", tools=[weather], system="Be brief.")
    agent.run("a")
    agent.tools, agent.system, agent.template_options = [weather], "Be brief.", {}
    agent.run("b")
    engine.only_grows()


def test_the_tokens_that_the_model_generated_are_kept_through_a_change(make: Make) -> None:
    said = turn_text(Message("assistant", "", "Look.")) + call_text("weather", {"city": "Bern"})
    agent, engine = make(said, "It rains.", "Yes.", tools=[weather], template="qwen3")
    agent.run("Rain?")
    agent.system = "Be brief."
    agent.run("Sure?")
    assert said in engine.asked[2]


def test_a_change_is_kept_by_session_branch_and_resume(make: Make, store: Store) -> None:
    session = store.create(system="Be brief.")
    agent, engine = make("one", "two", "three", "four", system="Be brief.", session=session)
    agent.run("a")
    agent.system, agent.tools = "Be long.", [weather]
    agent.run("b")
    assert (session.info.system, session.info.tools) == ("Be long.", ("weather",))
    assert [m.message.text for m in session.messages()] == ["a", "one", "b", "two"]
    agent.branch(session.messages()[1].id)
    agent.run("c")
    assert engine.asked[2].startswith("<|im_start|>system\nBe long.")
    assert '"weather"' in engine.asked[2]
    agent.resume(store.open(session.id))
    agent.tools = []
    agent.run("d")
    assert '"weather"' not in engine.asked[3]
    assert [m.message.text for m in session.messages()] == ["a", "one", "c", "three"]
    assert [m.message.text for m in store.open(session.id).messages()] == ["a", "one", "c", "three", "d", "four"]


def test_a_change_before_the_first_run_and_after_a_reset(make: Make) -> None:
    agent, engine = make("one", "two", "three")
    agent.system = "A"
    agent.run("a")
    agent.reset()
    agent.system = "B"
    agent.run("b")
    assert ["B" in asked.split("user")[0] for asked in engine.asked] == [False, True]
    assert roles(agent.messages) == ["system", "user", "assistant"]


def test_all_else_that_can_be_set_takes_effect(make: Make) -> None:
    agent, engine = make("one", "two END three", call_text("delete", {"path": "x"}), "Gone.", RAIN, "No.", template="qwen3")
    agent.run("a")
    assert (engine.jobs[0]["sampling"], engine.jobs[0]["max_tokens"], engine.jobs[0]["max_thinking"]) == (Sampling(), 2048, None)
    agent.sampling, agent.limits, agent.stop = {"temperature": 0, "seed": 7}, Limits(tokens=99), "END"
    agent.max_thinking, agent.thinking, agent.template_options = 5, False, {"name": "value"}
    assert agent.run("b").text == "two"
    job = engine.jobs[1]
    assert (job["sampling"], job["max_tokens"], job["max_thinking"]) == (Sampling(temperature=0, seed=7), 99, 5)
    assert engine.asked[1].endswith("<think>\n\n</think>\n\n")
    agent.tools, agent.approve, agent.constrain = [delete, weather], lambda request: Answer.yes(), False
    (gone,) = agent.run("c").calls
    assert (gone.name, dict(gone.arguments), gone.text) == ("delete", {"path": "x"}, "deleted x")
    assert engine.jobs[2]["constraint"]["enforce"] is False
    agent.policy = Policy((Rule("deny", "weather"),))
    assert agent.run("d").calls == ()
    assert agent.gate.policy is agent.policy


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("tools", ["clok"], "clok"),
        ("tools", [weather, weather], "two tools called 'weather'"),
        ("tools", 5, "tools is 5"),
        ("tools", [5], "no tool"),
        ("system", None, "system is None"),
        ("sampling", {"temprature": 1}, "temprature"),
        ("sampling", {"seed": "x"}, "seed is 'x'"),
        ("sampling", 5, "sampling is 5"),
        ("limits", {"tokens": 5}, "use Limits(rounds="),
        ("stop", [""], "not empty"),
        ("stop", 5, "stop is 5"),
        ("constrain", "yes", "must be True or False"),
        ("thinking", 1, "must be True or False"),
        ("max_thinking", "many", "max_thinking is 'many'"),
        ("template_options", 5, "template_options is 5"),
        ("policy", "allow", "policy is 'allow'"),
        ("approve", True, "approve is True"),
    ],
)
def test_a_wrong_value_changes_nothing(make: Make, name: str, value: Any, told: str) -> None:
    agent, _ = make("fine", tools=[weather], system="S")
    before = getattr(agent, name)
    with pytest.raises(SprigError) as e:
        setattr(agent, name, value)
    assert told in str(e.value)
    assert "\n" not in str(e.value)
    assert getattr(agent, name) == before
    with pytest.raises(SprigError):
        make("x", **{name: value})
    assert agent.run("a").text == "fine"


@pytest.mark.parametrize("name", ["engine", "gate", "root", "template", "messages", "tokens", "model", "lora", "temperature"])
def test_what_cannot_be_changed_says_so(make: Make, name: str) -> None:
    agent, _ = make("fine")
    with pytest.raises(AttributeError):
        setattr(agent, name, None)
    with pytest.raises(TypeError):
        agent.template_options["x"] = 1  # type: ignore[index]


def test_a_class_made_of_agent_has_attributes_of_its_own(make: Make) -> None:
    class Gardener(Agent):
        bed: int

    _, engine = make()
    gardener = Gardener(engine)
    gardener.bed = 3
    assert gardener.bed == 3
    gardener.close()


def test_a_session_can_be_given_until_the_conversation_begins(make: Make, store: Store) -> None:
    agent, _ = make("one", "two")
    agent.session = session = store.create()
    agent.run("a")
    assert len(session.messages()) == 2
    with pytest.raises(SprigError, match="resume"):
        agent.session = store.create()
    agent.session = session
    assert agent.run("b").text == "two"
    assert len(session.messages()) == 4


def test_what_cannot_be_rendered_leaves_the_conversation_as_it_was(make: Make) -> None:
    agent, engine = make("one", "two")
    agent.run("a")
    agent.template_options = {"messages": []}
    with pytest.raises(SprigError, match="messages"):
        agent.run("b")
    agent.template_options = {}
    assert agent.run("b").text == "two"
    engine.only_grows()
