"""The agent in an event loop: awaited, streamed, cancelled by task; several on one engine; coroutines in the caller's loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent import events as e
from agent.approval.policy import ApprovalRequest, Policy, Rule
from agent.async_agent import AsyncAgent
from agent.errors import SprigError
from agent.limits import Limits
from agent.messages import Message, ToolCall
from agent.sessions.store import Store
from agent.tools.define import tool
from agent.tools.result import ToolResult
from agent.turn.hooks import HookError
from tests.fixtures.fake_engine import FakeEngine, Say, call_text
from tests.fixtures.scripted import RAIN, delete, roles, weather

pytestmark = pytest.mark.usefixtures("module_home")

AsyncMake = Callable[..., tuple[AsyncAgent, FakeEngine]]
WAIT = call_text("wait", {})


_before: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _those_of_other_tests() -> None:
    """A tool that another test gave up may go on in its thread."""
    _before.clear()
    _before.update(threading.enumerate())


def ours() -> list[str]:
    """Threads of runs, calls and tools that have begun in this test and are there."""
    return [t.name for t in threading.enumerate() if t not in _before and t.name.startswith(("sprig", "tool "))]


@pytest_asyncio.fixture
async def make(kept_templates: None) -> AsyncIterator[AsyncMake]:
    """Makes agents over scripted engines, and closes them; no thread is left."""
    made: list[AsyncAgent] = []

    def new(*script: Say | str, **settings: Any) -> tuple[AsyncAgent, FakeEngine]:
        engine = FakeEngine(script)
        made.append(AsyncAgent(engine, **settings))
        return made[-1], engine

    yield new
    for agent in made:
        await agent.close()
    assert ours() == []


def slow(text: str = "word " * 200) -> Say:
    """An answer that takes its time."""
    return Say(text, during=lambda said: time.sleep(0.02))


async def speaking(engine: FakeEngine) -> None:
    """Wait until the model has said something."""
    while not any(engine.said):
        await asyncio.sleep(0.002)


async def test_a_run_is_awaited(make: AsyncMake) -> None:
    agent, _ = make(RAIN, "It rains.", "Yes.", tools=[weather], system="Be brief.")
    result = await agent.run("Rain?")
    assert (result.text, result.reason) == ("It rains.", "done")
    assert result.calls[0].text == "rain in Bern for 1"
    assert (await agent.run("Sure?")).text == "Yes."
    assert roles(agent.messages) == ["system", "user", "assistant", "tool", "assistant", "user", "assistant"]
    assert agent.tokens > 0
    assert (agent.system, agent.tools, agent.session) == ("Be brief.", (weather,), None)
    assert agent.tool("weather") is weather
    agent.limits = Limits(tokens=7)
    assert agent.opened.limits.tokens == 7


async def test_events_come_as_they_do_in_the_agent(make: AsyncMake) -> None:
    agent, engine = make("Let me see.\n" + RAIN, "It rains.", tools=[weather])
    kinds = [type(event).__name__ async for event in agent.stream("Rain?", tool_choice="required")]
    assert [k for i, k in enumerate(kinds) if not i or kinds[i - 1] != k] == [
        "Prefill", "Text", "CallForming", "CallReady", "ToolDone", "Prefill", "Text", "Done",
    ]  # fmt: skip
    assert engine.jobs[0]["constraint"]["choice"] == "required"


async def test_before_it_is_open_and_after_it_is_closed_one_line_says_so(make: AsyncMake) -> None:
    agent, _ = make("a")
    with pytest.raises(SprigError, match="is not open yet: use it in `async with`"):
        assert agent.messages
    async with agent:
        assert agent.messages == ()
    await agent.close()
    with pytest.raises(SprigError, match="this agent is closed"):
        await agent.run("x")


async def test_errors_are_those_of_the_agent(make: AsyncMake) -> None:
    agent, _ = make("a", tools=[weather])
    with pytest.raises(SprigError, match="tool_choice is 'never'"):
        await agent.run("x", tool_choice="never")
    with pytest.raises(TypeError, match="nonsense"):
        await agent.run("x", nonsense=1)
    with pytest.raises(SprigError, match="there are two tools called 'weather'"):
        await AsyncAgent(FakeEngine(), tools=[weather, weather]).open()
    assert (await agent.run("x")).text == "a"


async def test_the_model_is_found_in_a_thread() -> None:
    made_in: list[threading.Thread] = []

    class Engine(FakeEngine):
        def conversation(self) -> str:
            made_in.append(threading.current_thread())
            return super().conversation()

    async with AsyncAgent(Engine()):
        assert made_in[0] is not threading.current_thread()


class SlowToOpen(FakeEngine):
    """An engine that an agent waits for before it is made."""

    def conversation(self) -> str:
        time.sleep(0.05)
        return super().conversation()


async def test_a_task_that_is_cancelled_while_the_agent_is_made(kept_templates: None) -> None:
    engine = SlowToOpen(["Hello."])
    agent = AsyncAgent(engine)
    opening = asyncio.create_task(agent.open())
    await asyncio.sleep(0.02)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert engine.forgotten == ["c1"]  # what was made was closed
    assert ours() == []
    async with agent:
        assert (await agent.run("x")).text == "Hello."


async def test_whoever_comes_first_opens_it_for_all(kept_templates: None) -> None:
    engine = SlowToOpen()
    agent = AsyncAgent(engine)
    await asyncio.gather(agent.open(), agent.open())
    await agent.close()
    assert engine.forgotten == ["c1"]
    assert engine.conversation() == "c2"


@pytest.mark.slow
async def test_the_loop_goes_on_while_the_model_speaks(make: AsyncMake) -> None:
    agent, _ = make(slow("word " * 20))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.002)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await agent.run("x")
    ticking.cancel()
    assert ticks >= 5


async def test_several_agents_on_one_engine_at_once(make: AsyncMake) -> None:
    engine = FakeEngine(["one", "one", "one"])
    agents = [AsyncAgent(engine) for _ in range(3)]
    results = await asyncio.gather(*(agent.run("x") for agent in agents))
    assert [r.text for r in results] == ["one"] * 3
    for agent in agents:
        await agent.close()
    assert len(set(engine.forgotten)) == 3


async def test_two_runs_of_one_agent_at_once_are_refused(make: AsyncMake) -> None:
    agent, engine = make(slow(), "b")
    first = asyncio.create_task(agent.run("x"))
    await speaking(engine)
    with pytest.raises(SprigError, match="this agent is answering already"):
        await agent.run("y")
    agent.cancel()
    assert (await first).reason == "cancelled"


# Cancellation.


async def test_a_cancelled_task_cancels_its_run_and_waits_for_the_end(make: AsyncMake) -> None:
    agent, engine = make(slow(), "Hello.")
    run = asyncio.create_task(agent.run("x"))
    await speaking(engine)
    began = time.monotonic()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert time.monotonic() - began < 1.5
    assert ours() == []
    assert 0 < len(engine.said[0]) < 1000
    assert roles(agent.messages) == ["user", "assistant"]
    assert (await agent.run("y")).text == "Hello."
    engine.only_grows()


async def test_a_task_that_is_cancelled_before_its_run_began(make: AsyncMake) -> None:
    agent, engine = make("a")
    await agent.open()
    run = asyncio.create_task(agent.run("x"))
    await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert ours() == []
    engine.script[:] = ["Hello."]
    assert (await agent.run("y")).text == "Hello."


async def test_time_is_up(make: AsyncMake) -> None:
    agent, engine = make(slow())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await agent.run("x")
    assert ours() == []
    engine.script[:] = ["b"]
    assert (await agent.run("y")).text == "b"


async def test_leaving_the_loop_early(make: AsyncMake) -> None:
    agent, _ = make(slow(), "b")
    async for event in agent.stream("x"):
        if isinstance(event, e.Text):
            break
    assert (await agent.run("y")).text == "b"  # at once: it waits until the first has come to rest
    assert roles(agent.messages) == ["user", "assistant", "user", "assistant"]


async def test_a_stream_that_is_closed_has_ended(make: AsyncMake) -> None:
    agent, _ = make(slow())
    async with aclosing(agent.stream("x")) as events:
        async for _ in events:
            break
    assert ours() == []
    assert [event async for event in events] == []


async def test_an_error_in_the_body_of_the_loop(make: AsyncMake) -> None:
    agent, _ = make(slow(), "b")

    async def read() -> None:
        async for _ in agent.stream("x"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await read()
    assert (await agent.run("y")).text == "b"


async def test_cancel_gives_a_result(make: AsyncMake) -> None:
    agent, _ = make(slow())
    events = []
    async for event in agent.stream("x"):
        events.append(event)
        if isinstance(event, e.Text):
            agent.cancel()
    assert isinstance(events[-1], e.Done)
    assert events[-1].result.reason == "cancelled"


async def test_closing_ends_a_run(make: AsyncMake) -> None:
    agent, engine = make(slow())
    run = asyncio.create_task(agent.run("x"))
    await speaking(engine)
    await agent.close()
    assert ours() == []
    assert (await run).reason == "cancelled"


async def test_a_slow_reader_holds_the_run_up(make: AsyncMake) -> None:
    agent, engine = make("w " * 3000, limits=Limits(tokens=9000))
    events = agent.stream("x")
    await anext(events)
    await asyncio.sleep(0.1)
    assert len(engine.said[0]) < 2000
    assert len("".join([event.text async for event in events if isinstance(event, e.Text)])) >= 5999


# Coroutines.


async def test_a_coroutine_of_a_tool_runs_in_the_loop_of_the_caller(make: AsyncMake) -> None:
    here, where = asyncio.get_running_loop(), []
    answered: asyncio.Future[str] = here.create_future()

    @tool
    async def ask(question: str) -> str:
        """Ask."""
        where.append(asyncio.get_running_loop())
        return await answered

    agent, _ = make(call_text("ask", {"question": "?"}), "Done.", tools=[ask])
    run = asyncio.create_task(agent.run("x"))
    while not where:
        await asyncio.sleep(0.01)
    answered.set_result("forty-two")
    assert (await run).calls[0].text == "forty-two"
    assert where == [here]


async def test_the_time_of_a_coroutine_is_up(make: AsyncMake) -> None:
    ended: list[str] = []

    @tool(timeout=0.05)
    async def wait() -> None:
        """Wait."""
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            ended.append("cleaned up")
            raise

    agent, _ = make(WAIT, "Done.", tools=[wait])
    (ran,) = (await agent.run("x")).calls
    assert (ran.ok, ran.text, ended) == (False, "no result within 0.05 s", ["cleaned up"])


async def test_a_cancelled_task_cancels_the_coroutine_of_its_tool(make: AsyncMake) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    @tool
    async def wait() -> None:
        """Wait."""
        began.set()
        try:
            await asyncio.sleep(20)
        finally:
            ended.set()

    agent, _ = make(WAIT, "Fine.", tools=[wait])
    run = asyncio.create_task(agent.run("x"))
    await began.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert ended.is_set()
    assert ours() == []
    assert len(asyncio.all_tasks()) == 1
    assert agent.messages[-1] == Message("tool", "cancelled", call_id=agent.messages[-1].call_id, name="wait")
    assert (await agent.run("y")).text == "Fine."


async def test_context_variables_of_the_caller_reach_every_tool(make: AsyncMake) -> None:
    who = contextvars.ContextVar("who", default="nobody")

    @tool
    def plain() -> str:
        """Plain."""
        return who.get()

    @tool
    async def later() -> str:
        """Later."""
        return who.get()

    both = call_text("plain", {}) + "\n" + call_text("later", {})
    agent, _ = make(both, "Done.", both, "Done.", tools=[plain, later])
    for name in ("ada", "bea"):
        who.set(name)
        assert [c.text for c in (await agent.run("x")).calls] == [name, name]


async def test_an_approver_and_hooks_may_be_coroutines(make: AsyncMake) -> None:
    here, said = asyncio.get_running_loop(), []

    async def approve(request: ApprovalRequest) -> bool:
        await asyncio.sleep(0)
        said.append(("approve", asyncio.get_running_loop() is here))
        return True

    async def watch(event: e.Event) -> None:
        await asyncio.sleep(0)
        if isinstance(event, e.Done):
            said.append(("done", asyncio.get_running_loop() is here))

    async def before(call: ToolCall) -> ToolCall:
        return replace(call, arguments={"path": "y"})

    async def after(call: ToolCall, result: ToolResult) -> str:
        return result.text.upper()

    agent, _ = make(
        call_text("delete", {"path": "x"}), "Gone.", tools=[delete], approve=approve, on_event=watch, before_tool=before,
        after_tool=after,
    )  # fmt: skip
    assert [c.text for c in (await agent.run("x")).calls] == ["DELETED Y"]
    assert said == [("approve", True), ("done", True)]


@pytest.mark.parametrize("hook", ["approve", "before_tool", "after_tool"])
async def test_a_cancelled_task_ends_a_question_that_nobody_answers(make: AsyncMake, hook: str) -> None:
    asked = asyncio.Event()

    async def never(*_: Any) -> bool:
        asked.set()
        await asyncio.Event().wait()
        return True

    agent, _ = make(RAIN, "Fine.", tools=[weather], policy=Policy([Rule("ask")]), **{"approve": lambda r: True, hook: never})
    run = asyncio.create_task(agent.run("x"))
    await asked.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert ours() == []
    assert agent.messages[-1].role == "tool"
    assert "rain" not in agent.messages[-1].text


async def test_a_hook_that_fails_is_raised_where_the_run_is_awaited(make: AsyncMake) -> None:
    async def watch(event: e.Event) -> None:
        if isinstance(event, e.ToolDone):
            raise OSError("disk full")

    agent, _ = make(RAIN, "Fine.", tools=[weather], on_event=watch)
    with pytest.raises(HookError, match="on_event raised OSError: disk full"):
        await agent.run("x")
    assert (await agent.run("y")).text == "Fine."


async def test_the_session_is_that_of_the_agent(make: AsyncMake, tmp_path: Path) -> None:
    with Store(tmp_path / "sessions.db") as store:
        session = store.create()
        agent, _ = make("a", "b", "c", session=session)
        await agent.run("x")
        first = session.messages()[0].id
        await agent.branch(first)
        assert [event async for event in agent.stream(None)][-1].result.text == "b"  # type: ignore[union-attr]
        await agent.resume(None)
        assert (agent.session, agent.messages) == (None, ())
        await agent.run("y")
        await agent.reset()
        assert agent.messages == ()


def test_the_settings_make_one_too(home: Path, kept_templates: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> str:
        engine = FakeEngine(["Hello."])
        async with AsyncAgent.from_settings(model=engine, system="Be brief.") as agent:
            assert agent.system == "Be brief."
            return (await agent.run("x")).text

    assert asyncio.run(main()) == "Hello."


def test_a_program_that_is_interrupted_leaves_no_thread(kept_templates: None) -> None:
    async def main() -> None:
        engine = FakeEngine([slow()])
        agent = AsyncAgent(engine)
        run = asyncio.create_task(agent.run("x"))
        await speaking(engine)
        assert not run.done()

    asyncio.run(main())  # which cancels what is left
    assert ours() == []
