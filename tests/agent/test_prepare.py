"""An agent reads ahead while a person still writes: the first answer then finds system prompt and tools in the cache."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.agent import Agent
from agent.async_agent import AsyncAgent
from agent.engine.handle import Engine
from agent.errors import EngineError, SprigError
from agent.events import Event, Prefill, Text
from agent.limits import Limits
from agent.sessions.store import Store
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.fake_engine import Say
from tests.fixtures.scripted import Make

pytestmark = pytest.mark.usefixtures("home")

TOOLS = ["read_file", "list_files", "search_files", "calculate", "clock"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_model(tmp_path_factory.mktemp("model") / "hermes.gguf", "hermes")


@pytest.fixture
def engine(model: Path, kept_templates: None) -> Iterator[Engine]:
    with Engine(model, context=4096, threads=1, batch=64) as made:
        yield made


def first_prefill(agent: Agent, text: str) -> Prefill:
    """How the prompt of an answer begins."""
    events = agent.stream(text)
    found = next(event for event in events if isinstance(event, Prefill))
    agent.cancel()
    for _ in events:
        pass
    return found


def test_the_first_answer_computes_only_the_question(engine: Engine, tmp_path: Path) -> None:
    with Agent(engine, tools=TOOLS, system="You grow leaves.", root=tmp_path) as agent:
        told: list[Event] = []
        assert agent.prepare(told.append)
        assert [m.role for m in agent.messages] == ["system"]
        assert isinstance(told[-1], Prefill)
        assert told[-1].done == told[-1].total > 400
        prefill = first_prefill(agent, "Hello")
        assert prefill.cached == told[-1].total
        assert prefill.total - prefill.cached < 200
    with Agent(engine, tools=TOOLS, system="You grow leaves.", root=tmp_path) as other:
        told.clear()
        assert other.prepare(told.append)
        assert [(e.done, e.cached) for e in told if isinstance(e, Prefill)] == [(told[-1].total, told[-1].total)], "from disk"  # type: ignore[union-attr]


def test_without_system_prompt_and_tools_there_is_little_to_read_and_a_second_time_nothing(engine: Engine) -> None:
    with Agent(engine) as agent:
        assert agent.prepare()
        told: list[Event] = []
        assert agent.prepare(told.append)
        assert all(event.done == event.cached for event in told if isinstance(event, Prefill))


def test_a_run_that_begins_meanwhile_goes_ahead_and_takes_over_what_was_read(engine: Engine, tmp_path: Path) -> None:
    with Agent(engine, tools=TOOLS, system="Leaf. " * 100, root=tmp_path) as agent:
        begun, done = threading.Event(), list[bool]()
        seen = list[Prefill]()

        def tell(event: Event) -> None:
            if isinstance(event, Prefill):
                seen.append(event)
                if event.done:
                    begun.set()

        thread = threading.Thread(target=lambda: done.append(agent.prepare(tell)))
        thread.start()
        assert begun.wait(20)
        prefill = first_prefill(agent, "Hello")
        thread.join(20)
        assert len(done) == 1
        assert prefill.cached >= next(event.done for event in seen if event.done) > 0


@pytest.mark.slow
def test_after_a_change_of_tools_the_conversation_is_read_again_before_it_goes_on(engine: Engine, tmp_path: Path) -> None:
    with Agent(engine, tools=["clock"], root=tmp_path, limits=Limits(tokens=8)) as agent:
        agent.run("Hello")
        agent.tools = TOOLS
        told: list[Event] = []
        assert agent.prepare(told.append)
        assert isinstance(told[-1], Prefill)
        assert first_prefill(agent, "And now?").cached >= told[-1].total - 1


def test_a_session_that_is_taken_up_is_read(make: Make, tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        session = store.create()
        agent, _ = make("four", session=session)
        agent.run("2 + 2?")
        other, engine = make("six", session=store.open(session.id))
        assert other.prepare()
        assert engine.read[0].endswith("four")
        other.run("3 + 3?")
        assert engine.asked[0].startswith(engine.read[0])


def test_what_is_read_is_the_beginning_of_whatever_is_asked(make: Make) -> None:
    for text in ("Hello", "…", "a", " ", "\n", "<|im_end|>"):
        agent, engine = make("yes", system="Be kind.", tools=["clock"])
        agent.prepare()
        agent.run(text)
        assert engine.asked[0].startswith(engine.read[0])
        assert "Be kind." in engine.read[0]
        assert "clock" in engine.read[0]


def test_it_gives_way_to_a_run_and_ends_when_it_is_told_to(make: Make) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def during(said: str) -> None:
        inside.set()
        go_on.wait(10)

    agent, engine = make(Say("a long answer", during=during), "next")
    thread = threading.Thread(target=lambda: agent.run("Hello"))
    thread.start()
    assert inside.wait(10)
    assert agent.prepare() is False, "a run goes on"
    go_on.set()
    thread.join(10)
    stop = threading.Event()
    stop.set()
    assert engine.read == []
    agent.close()
    with pytest.raises(SprigError, match="this agent is closed"):
        agent.prepare()


@pytest.mark.parametrize("end", ["cancel", "close", "event"])
def test_cancelling_and_closing_end_a_reading(engine: Engine, tmp_path: Path, end: str) -> None:
    stop = threading.Event()
    with Agent(engine, tools=TOOLS, system="Leaf. " * 100, root=tmp_path) as agent:
        ways = {"cancel": agent.cancel, "close": agent.close, "event": stop.set}
        told: list[Event] = []
        engine.wait()
        assert agent.prepare(lambda event: (told.append(event), ways[end]()), cancelled=stop) is False
        assert isinstance(told[-1], Prefill)
        assert told[-1].done < told[-1].total


def test_a_model_that_is_closed_while_it_reads_is_one_error(engine: Engine, tmp_path: Path) -> None:
    agent = Agent(engine, tools=TOOLS, system="Leaf. " * 100, root=tmp_path)
    engine.wait()
    with agent, pytest.raises(EngineError, match="the model was closed meanwhile"):
        agent.prepare(lambda event: engine.close())


@pytest.mark.slow
async def test_an_async_agent_prepares_too_and_a_cancelled_task_leaves_it_usable(engine: Engine, tmp_path: Path) -> None:
    async with AsyncAgent(engine, tools=TOOLS, system="Leaf. " * 100, root=tmp_path) as agent:
        task = asyncio.create_task(agent.prepare())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await agent.prepare()
        async for event in agent.stream("Hello"):
            if isinstance(event, Prefill):
                assert event.cached > 400
            if isinstance(event, Text):
                break
