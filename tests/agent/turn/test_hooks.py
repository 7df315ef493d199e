"""Hooks of a script: each event, each call before and after it runs; and what happens when one of them fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import events as e
from agent.approval.policy import ApprovalRequest, Policy, Rule
from agent.messages import ToolCall
from agent.sessions.store import Store
from agent.tools.define import tool
from agent.tools.result import ToolError, ToolResult
from agent.turn.hooks import HookError
from tests.fixtures.fake_engine import Say, call_text
from tests.fixtures.scripted import RAIN, Make, delete, roles, weather

pytestmark = pytest.mark.usefixtures("module_home")


def test_every_event_of_run_and_stream_is_seen_before_it_is_handed_out(make: Make) -> None:
    seen: list[e.Event] = []
    agent, _ = make(RAIN, "It rains.", "Still.", tools=[weather], on_event=seen.append)
    agent.run("Rain?")
    assert [type(event).__name__ for event in seen[-3:]] == ["Text", "Text", "Done"]
    assert any(isinstance(event, e.ToolDone) for event in seen)
    seen.clear()
    for event in agent.stream("And now?"):
        assert seen[-1] is event
    assert isinstance(seen[-1], e.Done)


def test_a_call_is_changed_before_it_is_approved_and_runs_so(make: Make) -> None:
    asked: list[ApprovalRequest] = []

    def approve(request: ApprovalRequest) -> bool:
        asked.append(request)
        return True

    def elsewhere(call: ToolCall) -> ToolCall:
        return replace(call, arguments={"path": "/tmp/" + call.arguments["path"]}, id="")

    agent, _ = make(
        call_text("delete", {"path": "x"}), "Gone.", tools=[delete], approve=approve, before_tool=elsewhere
    )  # fmt: skip
    result = agent.run("Delete x")
    assert [r.call.arguments for r in asked] == [{"path": "/tmp/x"}]
    (ran,) = result.calls
    assert (ran.call.arguments, ran.text) == ({"path": "/tmp/x"}, "deleted /tmp/x")
    written = result.messages[1].calls[0]
    assert (written.arguments, written.id) == ({"path": "x"}, ran.call.id)  # what the model wrote is what it remembers


def test_a_rule_judges_the_changed_call(make: Make) -> None:
    policy = Policy([Rule("allow", "delete"), Rule("deny", "delete", "path", "/etc/*")])
    agent, engine = make(
        call_text("delete", {"path": "x"}), "No.", tools=[delete], policy=policy,
        before_tool=lambda call: replace(call, arguments={"path": "/etc/x"}),
    )  # fmt: skip
    assert agent.run("Delete x").calls == ()
    assert "not allowed: a rule says deny" in engine.asked[1]


def test_a_call_is_refused_and_the_model_is_told_why(make: Make) -> None:
    def before(call: ToolCall) -> None:
        raise ToolError("not at night")

    agent, engine = make(RAIN, "Tomorrow.", tools=[weather], before_tool=before)
    events = list(agent.stream("Rain?"))
    assert [event.why for event in events if isinstance(event, e.CallRefused)] == ["not at night"]
    assert "error: not at night" in engine.asked[1]


def test_only_what_fits_the_schema_comes_to_the_hook(make: Make) -> None:
    seen: list[ToolCall] = []
    agent, _ = make(call_text("weather", {"town": "Bern"}), RAIN, "Rain.", tools=[weather], before_tool=seen.append)
    agent.run("Rain?")
    assert [dict(call.arguments) for call in seen] == [{"city": "Bern"}]


def test_a_hook_that_changes_the_call_in_its_hands_changes_nothing(make: Make) -> None:
    agent, _ = make(RAIN, "Rain.", tools=[weather], before_tool=lambda call: call.arguments.update(city="Rome"))
    result = agent.run("Rain?")
    assert result.calls[0].text == "rain in Bern for 1"
    assert result.messages[1].calls[0].arguments == {"city": "Bern"}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (lambda call: replace(call, arguments={"city": 7}), "before_tool changed a call of weather so that it does not fit: "),
        (lambda call: replace(call, arguments={"town": "x"}), "so that it does not fit: "),
        (lambda call: replace(call, name="delete"), "before_tool returned a value of type ToolCall for a call of weather: "),
        (lambda call: False, "before_tool returned False for a call of weather: return None or"),
        (lambda call: 1 / 0, "before_tool raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_wrong_hook_ends_the_run_and_the_conversation_goes_on(make: Make, changed: Callable[..., Any], why: str) -> None:
    wrong = [changed]
    agent, engine = make(
        RAIN, "Fine.", tools=[weather, delete], before_tool=lambda call: wrong.pop()(call) if wrong else None
    )  # fmt: skip
    with pytest.raises(HookError) as caught:
        agent.run("Rain?")
    assert why in str(caught.value)
    assert roles(agent.messages) == ["user", "assistant", "tool"]
    assert agent.messages[-1].text == "interrupted: there is no result"
    assert agent.run("Never mind.").text == "Fine."
    engine.only_grows()


def test_what_a_hook_raised_is_the_cause(make: Make) -> None:
    agent, _ = make(RAIN, tools=[weather], before_tool=lambda call: {}["x"])
    with pytest.raises(HookError, match=r"^before_tool raised KeyError: 'x'$") as caught:
        agent.run("Rain?")
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_result_is_redacted_for_the_model_the_session_and_the_events(make: Make, tmp_path: Path) -> None:
    @tool
    def read() -> dict[str, str]:
        """Read the note."""
        return {"word": "swordfish"}

    def redact(call: ToolCall, result: ToolResult) -> str:
        return result.text.replace("swordfish", "****")

    with Store(tmp_path / "sessions.db") as store:
        session = store.create()
        agent, engine = make(call_text("read", {}), "Read.", tools=[read], session=session, after_tool=redact)
        events = list(agent.stream("Read"))
        (done,) = [event for event in events if isinstance(event, e.ToolDone)]
        assert (done.ok, done.text, done.data) == (True, '{"word":"****"}', None)
        assert "****" in engine.asked[1]
        kept = [(m.message.text, m.data) for m in session.messages() if m.message.role == "tool"]
        assert kept == [('{"word":"****"}', None)]
        assert "swordfish" not in f"{engine.asked} {session.export_json()} {events}"


def test_a_whole_result_takes_the_place_of_another(make: Make) -> None:
    agent, _ = make(RAIN, "Dry.", tools=[weather], after_tool=lambda call, result: ToolResult(False, "dry\x1b[2J", [1]))
    (ran,) = agent.run("Rain?").calls
    assert (ran.ok, ran.text, ran.data) == (False, "dry", [1])
    assert ran.seconds > 0


@pytest.mark.parametrize("hook", [lambda call, result: 1 / 0, lambda call, result: 3])
def test_a_result_that_could_not_be_redacted_is_withheld(make: Make, hook: Callable[..., Any]) -> None:
    agent, engine = make(RAIN, "Ok.", tools=[weather], after_tool=hook)
    with pytest.raises(HookError, match=r"^after_tool (raised|returned) "):
        agent.run("Rain?")
    assert agent.messages[-1].text == "error: the tool ran, but its result is withheld"
    assert agent.run("Go on").text == "Ok."
    assert "rain in Bern" not in engine.asked[-1]


def test_a_watcher_that_fails_ends_the_run_in_the_middle_of_an_answer(make: Make) -> None:
    broken = [True]

    def watch(event: e.Event) -> None:
        if isinstance(event, e.Text) and broken:
            broken.clear()
            raise OSError("disk full")

    agent, _ = make("A long answer.", "Again.", on_event=watch)
    with pytest.raises(HookError, match=r"^on_event raised OSError: disk full$"):
        list(agent.stream("Say"))
    assert roles(agent.messages) == ["user", "assistant"]
    assert agent.run("Once more").text == "Again."


def test_hooks_may_be_coroutines_of_a_plain_agent_too(make: Make) -> None:
    async def before(call: ToolCall) -> ToolCall:
        await asyncio.sleep(0)
        return replace(call, arguments={"city": "Zug"})

    async def approve(request: ApprovalRequest) -> bool:
        await asyncio.sleep(0)
        return request.call.arguments["city"] == "Zug"

    ask = Policy([Rule("ask")])
    agent, _ = make(RAIN, "Rain.", tools=[weather], before_tool=before, approve=approve, policy=ask)
    assert agent.run("Rain?").calls[0].text == "rain in Zug for 1"


def test_a_plain_agent_with_a_coroutine_as_a_hook_runs_where_a_loop_runs_already(make: Make) -> None:
    """As in a notebook."""
    seen: list[e.Event] = []

    async def watch(event: e.Event) -> None:
        await asyncio.sleep(0)
        seen.append(event)

    agent, _ = make("It rains.", on_event=watch)

    async def cell() -> str:
        return agent.run("Rain?").text

    assert asyncio.run(cell()) == "It rains."
    assert isinstance(seen[-1], e.Done)


def test_a_cancellation_ends_the_coroutine_of_a_hook_of_a_plain_agent(make: Make) -> None:
    cleaned = threading.Event()

    async def before(call: ToolCall) -> None:
        agent.cancel()
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.set()

    agent, _ = make(RAIN, Say("", reason="cancelled"), tools=[weather], before_tool=before)
    threads = threading.active_count()
    assert agent.run("Rain?").reason == "cancelled"
    assert cleaned.is_set()
    assert threading.active_count() <= threads


def test_cancelled_between_hook_and_tool_nothing_runs(make: Make) -> None:
    ran = threading.Event()

    @tool
    def work() -> str:
        """Work."""
        ran.set()
        return "done"

    agent, _ = make(
        call_text("work", {}), Say("", reason="cancelled"), tools=[work], before_tool=lambda call: agent.cancel()
    )  # fmt: skip
    assert agent.run("Work").reason == "cancelled"
    assert not ran.is_set()
