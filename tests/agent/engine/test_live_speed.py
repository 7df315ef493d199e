"""While an answer comes, a screen can count its tokens: every event tells how many there are since the one before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agent import events as e
from agent.agent import Agent
from agent.dialects.families import DIALECTS, THINK
from agent.dialects.parser import StreamParser
from agent.engine.handle import Step, TextStep
from agent.messages import Message, ToolSpec
from agent.tools.define import tool
from agent.turn.answer import Generation
from tests.fixtures.fake_engine import FakeEngine, call_text, turn_text

Spoken = e.Text | e.Thought | e.CallForming


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path))


def spoken(steps: Sequence[tuple[int, str]]) -> list[Spoken]:
    """Events of an answer whose steps are so many tokens with this text."""
    numbers = iter(range(10_000))
    spec = ToolSpec("weather", "", {"type": "object", "properties": {"city": {"type": "string"}}})
    answer = Generation(StreamParser(DIALECTS["hermes"], {"weather": spec}, thinking=THINK))

    def told() -> Iterator[Step]:
        for count, text in steps:
            yield TextStep(tuple(next(numbers) for _ in range(count)), text)

    return [event for event in answer.events(told()) if isinstance(event, Spoken)]


def test_tokens_that_say_nothing_yet_are_told_with_the_next_words() -> None:
    events = spoken([(2, "One"), (1, ""), (3, " \n"), (1, "two"), (1, " three")])
    assert [(event.text, event.tokens) for event in events] == [("One", 2), (" \ntwo", 5), (" three", 1)]


def test_several_events_of_one_step_count_it_once() -> None:
    events = spoken([(9, "<think>Hm</think>Well.\n" + call_text("weather", {"city": "Bern"}))])
    assert {type(event) for event in events} == {e.Thought, e.Text, e.CallForming}
    assert [event.tokens for event in events] == [9, *[0] * (len(events) - 1)]


def test_all_tokens_of_a_run_are_told() -> None:
    @tool
    def weather(city: str) -> str:
        """The weather."""
        return f"rain in {city}"

    thought = turn_text(Message("assistant", "It rains there.", "Rain, so."))
    call = call_text("weather", {"city": "Bern"})
    engine = FakeEngine([call, thought], template="hermes")
    with Agent(engine, tools=[weather]) as agent:
        events = list(agent.stream("Rain?"))
    done = events[-1]
    assert isinstance(done, e.Done)
    told = sum(event.tokens for event in events if isinstance(event, Spoken))
    generated = done.result.usage.generated_tokens
    # What closes a call or an answer has no event of its own.
    assert generated - len("}</tool_call>") - 7 <= told <= generated
    assert told > len(thought)


def test_the_count_is_no_part_of_what_was_said() -> None:
    assert e.Text("a", tokens=3) == e.Text("a")
    assert e.CallForming(0, "f", "x", tokens=3) == e.CallForming(0, "f", "x")
    match e.Thought("a", tokens=2):
        case e.Thought(text):
            assert text == "a"
