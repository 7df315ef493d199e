"""Spans of a run as OpenTelemetry's own SDK records them, held against the GenAI conventions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent import events as e
from agent.async_agent import AsyncAgent
from agent.messages import Message, ToolCall
from agent.sessions.store import Store
from agent.tools.define import tool
from agent.turn.hooks import HookError
from agent.turn.spans import Spans
from tests.fixtures.fake_engine import FakeEngine, Say, call_text, turn_text
from tests.fixtures.scripted import RAIN, Make, weather

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

pytestmark = pytest.mark.usefixtures("module_home")
CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


@dataclass
class Recorded:
    """What a script's tracer has recorded."""

    exporter: InMemorySpanExporter
    tracer: Any

    @property
    def spans(self) -> list[Any]:
        """In the order of their beginnings."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time)

    def named(self, name: str) -> Any:
        (found,) = [span for span in self.spans if span.name == name]
        return found


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    monkeypatch.delenv(CONTENT, raising=False)
    provider, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)  # the global provider can be set only once
    yield Recorded(exporter, provider.get_tracer("script"))
    provider.shutdown()


def test_a_run_with_a_tool_is_a_tree_of_spans(make: Make, recorded: Recorded, tmp_path: Path) -> None:
    with Store(tmp_path / "sessions.db") as store:
        session = store.create()
        agent, engine = make(RAIN, "It rains.", tools=[weather], session=session, sampling={"temperature": 0, "seed": 7})
        result = agent.run("Rain?")
    run, first, ran, second = recorded.spans
    assert [s.name for s in recorded.spans] == ["invoke_agent", "chat fake", "execute_tool weather", "chat fake"]
    assert run.parent is None
    assert {s.parent.span_id for s in (first, ran, second)} == {run.context.span_id}
    assert [s.kind.name for s in recorded.spans] == ["INTERNAL", "CLIENT", "INTERNAL", "CLIENT"]
    assert {s.status.status_code.name for s in recorded.spans} == {"UNSET"}
    common = {"gen_ai.provider.name": "sprig", "gen_ai.request.model": "fake", "gen_ai.conversation.id": session.id}
    request = {
        "gen_ai.request.max_tokens": 2048, "gen_ai.request.temperature": 0.0, "gen_ai.request.top_k": 40.0,
        "gen_ai.request.top_p": 0.95, "gen_ai.request.seed": 7,
    }  # fmt: skip
    assert dict(first.attributes) == {
        "gen_ai.operation.name": "chat", **common, **request, "gen_ai.output.type": "text",
        "gen_ai.response.finish_reasons": ("tool_call",), "gen_ai.response.time_to_first_chunk": 0.5,
        "gen_ai.usage.input_tokens": len(engine.asked[0]), "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.output_tokens": len(engine.said[0]),
    }  # fmt: skip
    assert second.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert dict(ran.attributes) == {
        "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather", "gen_ai.tool.call.id": result.calls[0].call.id,
        "gen_ai.tool.type": "function", "gen_ai.tool.description": "The weather.",
    }  # fmt: skip
    assert dict(run.attributes) == {
        "gen_ai.operation.name": "invoke_agent", **common, **request, "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": result.usage.prompt_tokens, "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.output_tokens": result.usage.generated_tokens,
    }  # fmt: skip


@pytest.mark.parametrize("switch", ["true", "SPAN_ONLY", "span_and_event"])
def test_what_was_said_is_recorded_only_where_the_switch_asks(
    make: Make, recorded: Recorded, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    monkeypatch.setenv(CONTENT, switch)
    thought = turn_text(Message("assistant", thinking="Hm.", calls=(ToolCall("weather", {"city": "Bern"}),)))
    agent, _ = make(thought, "It rains.", template="qwen3", tools=[weather], system="Be brief.")
    call = agent.run("Rain?").calls[0].call
    run, first, ran, _ = recorded.spans

    def content(span: Any, name: str) -> Any:
        return json.loads(span.attributes[f"gen_ai.{name}"])

    question = {"role": "user", "parts": [{"type": "text", "content": "Rain?"}]}
    wish = {"type": "tool_call", "id": call.id, "name": "weather", "arguments": {"city": "Bern"}}
    assert content(first, "system_instructions") == [{"type": "text", "content": "Be brief."}]
    assert content(first, "input.messages") == [question]
    parts = [{"type": "reasoning", "content": "Hm."}, wish]
    assert content(first, "output.messages") == [{"role": "assistant", "parts": parts, "finish_reason": "tool_call"}]
    assert content(first, "tool.definitions")[0]["name"] == "weather"
    assert content(ran, "tool.call.arguments") == {"city": "Bern"}
    assert ran.attributes["gen_ai.tool.call.result"] == "rain in Bern for 1"
    assert content(run, "input.messages") == [question]
    assert content(run, "output.messages") == [{"role": "assistant", "parts": [{"type": "text", "content": "It rains."}]}]
    response = {"type": "tool_call_response", "id": call.id, "response": "rain in Bern for 1"}
    last = recorded.spans[3]
    assert content(last, "input.messages")[-1] == {"role": "tool", "parts": [response]}


def test_an_event_switch_puts_nothing_into_spans(make: Make, recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONTENT, "EVENT_ONLY")
    agent, _ = make("Secret.")
    agent.run("Rain?")
    assert "Rain?" not in str([dict(s.attributes) for s in recorded.spans])


def test_the_callers_span_is_above_and_the_tools_spans_are_below(make: Make, recorded: Recorded) -> None:
    @tool
    def look() -> str:
        """Look."""
        with recorded.tracer.start_as_current_span("inside"):
            return "seen"

    agent, _ = make(call_text("look", {}), "Seen.", tools=[look])
    with recorded.tracer.start_as_current_span("script") as outer:
        for _ in agent.stream("Look"):
            assert trace.get_current_span() is outer  # a stream changes nothing in the code that reads it
    assert recorded.named("invoke_agent").parent.span_id == recorded.named("script").context.span_id
    assert recorded.named("inside").parent.span_id == recorded.named("execute_tool look").context.span_id


def test_in_a_loop_too(kept_templates: None, recorded: Recorded) -> None:
    @tool
    async def look() -> str:
        """Look."""
        with recorded.tracer.start_as_current_span("inside"):
            await asyncio.sleep(0)
            return "seen"

    async def main() -> None:
        async with AsyncAgent(FakeEngine([call_text("look", {}), "Seen."]), tools=[look]) as agent:
            with recorded.tracer.start_as_current_span("script"):
                await agent.run("Look")

    asyncio.run(main())
    assert recorded.named("invoke_agent").parent.span_id == recorded.named("script").context.span_id
    assert recorded.named("inside").parent.span_id == recorded.named("execute_tool look").context.span_id


def test_an_object_is_asked_for(make: Make, recorded: Recorded) -> None:
    agent, _ = make('{"a": 1}')
    agent.run("x", schema={"type": "object", "properties": {"a": {"type": "integer"}}})
    assert recorded.named("chat fake").attributes["gen_ai.output.type"] == "json"


def test_what_ends_an_answer_is_recorded(recorded: Recorded) -> None:
    with Spans("model", stop=("END",)).chat([], [], form=False):
        pass
    assert recorded.named("chat model").attributes["gen_ai.request.stop_sequences"] == ("END",)


def test_a_tool_that_fails(make: Make, recorded: Recorded) -> None:
    agent, _ = make(call_text("weather", {"city": "Atlantis"}), "It sank.", tools=[weather])
    agent.run("Rain?")
    failed = recorded.named("execute_tool weather")
    assert failed.attributes["error.type"] == "tool_error"
    assert (failed.status.status_code.name, failed.status.description) == ("ERROR", None)
    assert recorded.named("invoke_agent").status.status_code.name == "UNSET"


def test_a_model_that_dies(make: Make, recorded: Recorded) -> None:
    agent, _ = make(Say("A long answer", dies=7))
    assert agent.run("x").reason == "error"
    assert recorded.named("chat fake").attributes["error.type"] == "EngineError"
    assert recorded.named("invoke_agent").attributes["error.type"] == "error"


def test_a_hook_that_fails(make: Make, recorded: Recorded) -> None:
    agent, _ = make(RAIN, tools=[weather], after_tool=lambda call, result: 1 / 0)
    with pytest.raises(HookError):
        agent.run("Rain?")
    for name in ("execute_tool weather", "invoke_agent"):
        assert recorded.named(name).attributes["error.type"] == "HookError"


def test_a_reader_that_leaves(make: Make, recorded: Recorded) -> None:
    agent, _ = make("A long answer.")
    for event in agent.stream("x"):
        if isinstance(event, e.Text):
            break
    for name in ("chat fake", "invoke_agent"):
        assert recorded.named(name).attributes["gen_ai.response.finish_reasons"] == ("cancelled",)
        assert recorded.named(name).status.status_code.name == "UNSET"


def test_without_a_provider_nothing_is_recorded_and_nothing_fails(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "get_tracer", lambda name: trace.NoOpTracer())
    monkeypatch.setenv(CONTENT, "true")
    agent, _ = make(RAIN, "It rains.", tools=[weather])
    assert agent.run("Rain?").text == "It rains."
