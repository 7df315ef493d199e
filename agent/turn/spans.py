"""OpenTelemetry spans of a run: one for the run, one for each answer of the model, one for each tool that runs.

Names and attributes are those of the GenAI semantic conventions (https://github.com/open-telemetry/semantic-conventions-genai,
status: development). A script that records spans has imported the package; in all others nothing happens here.
"""

from __future__ import annotations

import contextvars
import json
import os
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import Any

from agent.engine.handle import EndStep
from agent.engine.sampling import Sampling
from agent.events import Done, Event, Result, ToolDone
from agent.messages import Message, ToolCall, ToolSpec
from agent.tools.define import Tool

_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_FAILED = frozenset({"failed", "stuck", "error"})  # reasons that are errors; to be cancelled, or cut off, is none


class Spans:
    """The spans of one run.

    Args:
        model: name of the model.
        session: id of the session; empty, none is kept.
        sampling, max_tokens, stop: what each answer is asked with.
    """

    def __init__(
        self,
        model: str = "",
        session: str = "",
        sampling: Sampling | None = None,
        max_tokens: int = 0,
        stop: Sequence[str] = (),
    ) -> None:
        self._trace: Any = sys.modules.get("opentelemetry.trace")
        if self._trace is None:
            return
        self._tracer = self._trace.get_tracer("sprig")
        self._content = os.environ.get(_CONTENT, "").strip().lower() in ("true", "span_only", "span_and_event")
        self._context: Any = None  # what the spans of answers and tools are children in
        self._common = {"gen_ai.provider.name": "sprig", "gen_ai.request.model": model}
        if session:
            self._common["gen_ai.conversation.id"] = session
        self._request: dict[str, Any] = {"gen_ai.request.max_tokens": max_tokens}
        if stop:
            self._request["gen_ai.request.stop_sequences"] = list(stop)
        if sampling is not None:
            self._request |= {
                "gen_ai.request.temperature": float(sampling.temperature),
                "gen_ai.request.top_k": float(sampling.top_k),
                "gen_ai.request.top_p": float(sampling.top_p),
            }
            if sampling.seed is not None:
                self._request["gen_ai.request.seed"] = sampling.seed

    def run(self, events: Generator[Event]) -> Iterator[Event]:
        """The same events, with a span around them."""
        if self._trace is None:
            yield from events
            return
        attributes = {**self._common, **self._request}
        with self._span("invoke_agent", "", attributes, self._trace.SpanKind.INTERNAL) as span, closing(events):
            self._context = self._trace.set_span_in_context(span)
            for event in events:
                if isinstance(event, Done) and span.is_recording():
                    self._ended(span, event.result)
                yield event

    def chat(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, form: bool) -> AbstractContextManager[Any]:
        """A span around one answer. What it yields goes to ``answered`` when the answer is there.

        Args:
            messages: what the model reads.
            tools: that it may call.
            form: whether the answer is to be an object.
        """
        if self._trace is None:
            return nullcontext()
        attributes = {**self._common, **self._request, "gen_ai.output.type": "json" if form else "text"}
        if self._content:
            system = [part for m in messages if m.role == "system" for part in _parts(m)]
            attributes |= _json("gen_ai.system_instructions", system) if system else {}
            attributes |= _json("gen_ai.input.messages", [_message(m) for m in messages if m.role != "system"])
            attributes |= _json("gen_ai.tool.definitions", [_definition(t) for t in tools]) if tools else {}
        return self._span("chat", str(self._common["gen_ai.request.model"]), attributes, self._trace.SpanKind.CLIENT)

    def answered(self, span: Any, message: Message, end: EndStep | None) -> None:
        """The answer of a span is there."""
        if span is None or end is None or not span.is_recording():
            return
        reason = "tool_call" if message.calls and end.reason == "stop" else end.reason
        span.set_attributes({
            "gen_ai.response.finish_reasons": [reason],
            "gen_ai.response.time_to_first_chunk": end.timing["first_token_seconds"],
            "gen_ai.usage.input_tokens": end.timing["prompt_tokens"],
            "gen_ai.usage.cache_read.input_tokens": end.timing["cached_tokens"],
            "gen_ai.usage.output_tokens": end.timing["generated_tokens"],
        })  # fmt: skip
        if self._content:
            span.set_attributes(_json("gen_ai.output.messages", [{**_message(message), "finish_reason": reason}]))
        if end.reason in _FAILED:
            self._failed(span, end.reason, end.why)

    @contextmanager
    def tool(self, tool: Tool, call: ToolCall) -> Iterator[tuple[Any, contextvars.Context]]:
        """A span around a tool: what goes to ``ran`` when it has run, and the variables of which that span is part."""
        variables = contextvars.copy_context()
        if self._trace is None:
            yield None, variables
            return
        attributes = {
            "gen_ai.tool.name": tool.name, "gen_ai.tool.call.id": call.id,
            "gen_ai.tool.type": "extension" if tool.origin == "mcp" else "function",
            "gen_ai.tool.description": tool.spec.description,
        }  # fmt: skip
        if self._content:
            attributes |= _json("gen_ai.tool.call.arguments", dict(call.arguments))
        with self._span("execute_tool", tool.name, attributes, self._trace.SpanKind.INTERNAL) as span:
            variables.run(sys.modules["opentelemetry.context"].attach, self._trace.set_span_in_context(span, self._context))
            yield span, variables

    def ran(self, span: Any, done: ToolDone) -> None:
        """The tool of a span has run."""
        if span is None or not span.is_recording():
            return
        if self._content:
            span.set_attribute("gen_ai.tool.call.result", done.text)
        if not done.ok:
            self._failed(span, "tool_error", done.text)

    def _ended(self, span: Any, result: Result) -> None:
        usage = result.usage
        span.set_attributes({
            "gen_ai.response.finish_reasons": ["stop" if result.reason == "done" else result.reason],
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            "gen_ai.usage.output_tokens": usage.generated_tokens,
        })  # fmt: skip
        if self._content:
            asked, answers = ([m for m in result.messages if m.role == role] for role in ("user", "assistant"))
            span.set_attributes(_json("gen_ai.input.messages", [_message(m) for m in asked]))
            span.set_attributes(_json("gen_ai.output.messages", [_message(m) for m in answers[-1:]]))
        if result.reason in _FAILED:
            self._failed(span, result.reason, result.error)

    @contextmanager
    def _span(self, operation: str, subject: str, attributes: Mapping[str, Any], kind: Any) -> Iterator[Any]:
        name = f"{operation} {subject}".strip()
        attributes = {"gen_ai.operation.name": operation, **attributes}
        span = self._tracer.start_span(name, context=self._context, kind=kind, attributes=attributes)
        try:
            yield span
        except GeneratorExit:  # whoever reads the events has had enough
            span.set_attribute("gen_ai.response.finish_reasons", ["cancelled"])
            raise
        except BaseException as e:
            self._failed(span, type(e).__name__, str(e))
            raise
        finally:
            span.end()

    def _failed(self, span: Any, kind: str, why: str) -> None:
        """Why is content as well: it may quote what was said."""
        span.set_attribute("error.type", kind)
        span.set_status(self._trace.StatusCode.ERROR, why if self._content and why else None)


def _message(message: Message) -> dict[str, Any]:
    return {"role": message.role, "parts": _parts(message)}


def _parts(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "tool_call_response", "id": message.call_id, "response": message.text}]
    parts: list[dict[str, Any]] = [{"type": "reasoning", "content": message.thinking}] if message.thinking else []
    parts += [{"type": "text", "content": message.text}] if message.text else []
    calls = ({"type": "tool_call", "id": c.id, "name": c.name, "arguments": dict(c.arguments)} for c in message.calls)
    return [*parts, *calls]


def _definition(tool: ToolSpec) -> dict[str, Any]:
    return {"type": "function", "name": tool.name, "description": tool.description, "parameters": tool.parameters}


def _json(name: str, value: Any) -> dict[str, str]:
    """Attributes of spans have no structure: the convention lets it be JSON there."""
    return {name: json.dumps(value, ensure_ascii=False, default=str)}
