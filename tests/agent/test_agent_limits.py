"""What ends a run before its end: limits of rounds, tokens and time, the same call again and again, an answer in circles."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from agent import events as e
from agent.agent import Agent
from agent.errors import SprigError
from agent.limits import Limits
from agent.tools.define import tool
from agent.tools.result import ToolContext
from tests.fixtures.fake_engine import FakeEngine, Say, call_text

pytestmark = pytest.mark.usefixtures("module_home", "kept_templates")

counted = 0


@tool
def count() -> int:
    """One more each time."""
    global counted
    counted += 1
    return counted


@tool
def same(x: int = 1) -> str:
    """The same each time."""
    return "as before"


COUNT, SAME = call_text("count", {}), call_text("same", {})


def test_rounds() -> None:
    engine = FakeEngine([COUNT, COUNT, COUNT, "At last."])
    with Agent(engine, tools=[count], limits=Limits(rounds=3)) as agent:
        result = agent.run("Count")
        assert result.reason == "rounds"
        assert len(result.calls) == 3
        assert result.messages[-1].role == "tool"
        assert len(engine.asked) == 3, "nothing is computed for an answer that is never asked for"
        assert agent.run("Well?").text == "At last."
    assert engine.asked[3].rstrip().endswith("assistant")
    assert engine.asked[3].count("<|im_start|>assistant") == 4
    engine.only_grows()


def test_rounds_of_one_run_beat_the_agents() -> None:
    engine = FakeEngine([COUNT])
    with Agent(engine, tools=[count]) as agent:
        assert agent.run("Count", limits=Limits(rounds=1)).reason == "rounds"


def test_tokens() -> None:
    engine = FakeEngine(["It rains and it rains and it rains.", "Yes."])
    with Agent(engine, limits=Limits(tokens=10)) as agent:
        result = agent.run("Rain?")
        assert (result.text, result.reason) == ("It rains a", "length")
        assert agent.run("So?").text == "Yes."
    engine.only_grows()


def test_a_call_that_the_limit_of_tokens_cut_does_not_run() -> None:
    engine = FakeEngine([COUNT, "Sorry."])
    with Agent(engine, tools=[count], limits=Limits(tokens=len(COUNT) - 20)) as agent:
        events = list(agent.stream("Count"))
        problems = [x.text for x in events if isinstance(x, e.Problem)]
        assert len(problems) == 1
        assert "inside a tool call" in problems[0]
        assert not any(isinstance(x, e.ToolDone) for x in events)
        assert agent.run("Well?").text == "Sorry."
    engine.only_grows()


def test_a_whole_call_of_an_answer_that_was_ended_does_not_run_either() -> None:
    engine = FakeEngine([Say(COUNT + "\n", reason="time"), "Sorry."])
    with Agent(engine, tools=[count]) as agent:
        events = list(agent.stream("Count"))
        assert [x.why for x in events if isinstance(x, e.CallRefused)] == ["the answer was ended: time"]
        assert agent.messages[-1].text == "not run: the answer was ended"
        agent.run("Well?")
    assert "not run" in engine.asked[1]
    engine.only_grows()


def test_the_same_call_with_the_same_result_is_stopped() -> None:
    engine = FakeEngine([SAME, SAME, SAME, "Now."])
    with Agent(engine, tools=[same]) as agent:
        result = agent.run("Go")
        assert result.reason == "repeated call"
        assert result.error == "same was called 3 times with the same arguments and the same result"
        assert "the same call gave the same result before" not in engine.asked[1]
        assert "the same call gave the same result before" in engine.asked[2]
        assert agent.run("And?").text == "Now."
    engine.only_grows()


def test_the_same_call_with_other_results_goes_on() -> None:
    engine = FakeEngine([COUNT] * 6 + [SAME, call_text("same", {"x": 2}), SAME, "Done."])
    with Agent(engine, tools=[count, same]) as agent:
        assert agent.run("Go").reason == "done"


@pytest.mark.slow
def test_time_is_up_in_a_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, noticed = threading.Event(), threading.Event()

    @tool
    def hang(context: ToolContext) -> str:
        """Hang."""
        begun.set()
        context.cancelled.wait(30)
        noticed.set()
        return "woken"

    engine = FakeEngine([call_text("hang", {}) + "\n" + COUNT, "Fine."])
    with Agent(engine, tools=[hang, count]) as agent:
        assert agent.template.profile  # probing takes its time
        start, before = time.monotonic(), counted
        # Until the tool hangs, the clock stands: a machine with other work may take its time to get there.
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() if begun.is_set() else start)
        monkeypatch.setattr("agent.turn.parts.time", clock)
        result = agent.run("Hang", limits=Limits(seconds=0.8))
        assert time.monotonic() - start < 5
        assert result.reason == "time"
        assert [c.ok for c in result.calls] == [False]
        assert "time for the whole run was up" in result.calls[0].text
        assert counted == before, "nothing is begun when the time is up"
        assert noticed.wait(5), "the tool is told that nobody waits"
        assert agent.run("Again").text == "Fine."
    engine.only_grows()


@pytest.mark.slow
def test_time_is_up_while_the_model_speaks() -> None:
    engine = FakeEngine([Say("word " * 20, during=lambda said: time.sleep(0.02)), "Fine."])
    with Agent(engine) as agent:
        assert agent.template.profile
        assert agent.run("Talk", limits=Limits(seconds=0.2)).reason == "time"
        assert agent.run("Talk").reason == "done"


@pytest.mark.parametrize(
    ("reason", "becomes", "said"),
    [("loop", "loop", ""), ("context", "context", ""), ("stuck", "error", "no way to go on"), ("failed", "error", "status 3")],
)
def test_how_an_answer_ends_is_how_the_run_ends(reason: str, becomes: str, said: str) -> None:
    engine = FakeEngine([Say("round and", reason=reason, why="status 3" if reason == "failed" else ""), "Fine."])
    with Agent(engine, tools=[count]) as agent:
        result = agent.run("Talk")
        assert result.reason == becomes
        assert said in result.error
        assert result.text == "round and"
        assert agent.run("Again").text == "Fine."
    engine.only_grows()


def test_a_thought_of_limited_length_is_the_engines_business() -> None:
    engine = FakeEngine(["x"])
    with Agent(engine, max_thinking=7) as agent:
        agent.run("Talk")
    assert engine.jobs[0]["max_thinking"] == 7
    assert engine.jobs[0]["constraint"]["enforce"] is False


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0},
        {"tokens": 0},
        {"repeats": 0},
        {"result": 5},
        {"seconds": 0},
        {"seconds": -1.0},
        {"tokens": "5"},
        {"rounds": 1.5},
        {"seconds": "1"},
    ],
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SprigError, match=f"limits: {next(iter(wrong))} is"):
        Limits(**wrong)


@pytest.mark.slow
def test_a_text_beyond_what_a_template_renders_says_what_to_do() -> None:
    with Agent(FakeEngine(["Hello."])) as agent:
        for size in (1_100_000, 2_100_000):
            with pytest.raises(SprigError, match="send less at once, or let a tool read a long text part by part"):
                agent.run("x" * size)
        assert agent.messages == ()
        assert agent.run("Hi").text == "Hello."
