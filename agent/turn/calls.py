"""The tool calls of a run: each is refused, or runs and gives a result."""

from __future__ import annotations

import json
from collections.abc import Iterator

from agent.approval.trust import read_from_others
from agent.events import CallRefused, Event, Problem, ToolDone, ToolProgress
from agent.grammar.schema.validate import validate
from agent.messages import ToolCall
from agent.text.result_words import AGAIN, DATA
from agent.tools.define import Tool
from agent.tools.result import ToolContext, ToolError, ToolResult, cap
from agent.tools.run import progressing
from agent.turn.answer import Generation, new_call_id
from agent.turn.hooks import HookError
from agent.turn.parts import Parts
from agent.turn.record import Record

_CHARS_PER_TOKEN = 2  # at least, of a tool's result; only for cutting it before it is tokenized
_LEAST_RESULT = 200  # characters of a result that the model gets to see however full the context is


class Calls:
    """Runs the calls of one run and puts what comes of them into its record."""

    def __init__(self, parts: Parts, record: Record) -> None:
        self._parts, self._record = parts, record
        self._tools = {tool.name: tool for tool in parts.tools}
        self._seen: dict[str, int] = {}  # how often the same call has given the same result

    def handle(self, answer: Generation) -> Iterator[Event]:
        """Run or refuse everything that an answer calls. Calls that the script answers end the run when the others have run."""
        for call in answer.calls:
            yield from self._call(call)
        for broken in answer.broken:
            call = ToolCall("unreadable", {}, new_call_id())
            yield from self._refuse(call, f"error: the call could not be read: {broken.why}", broken.why)
        if not self._record.reason and not all(done.answered for done in self._record.calls):
            self._record.end("call")

    def leave(self, answer: Generation) -> Iterator[Event]:
        """The answer was ended from outside: its calls are not run, and the model must not wait for results."""
        for broken in answer.broken:
            yield Problem(f"the answer ended ({self._record.reason}) inside a tool call: {broken.why}")
        for call in answer.calls:
            yield from self._refuse(call, "not run: the answer was ended", f"the answer was ended: {self._record.reason}")

    def _refuse(self, call: ToolCall, told: str, why: str) -> Iterator[Event]:
        self._record.replied(call, told, ok=False)
        yield CallRefused(call, why)

    def _call(self, call: ToolCall) -> Iterator[Event]:
        tool = self._tools.get(call.name)
        refused, shown = self._record.over() or self._wrong(tool, call), ""
        if not refused and tool is not None:
            call, refused = self._hooked(tool, call)  # before it is approved: what is approved is what runs
        if not refused and tool is not None:
            read = read_from_others(self._parts.transcript.messages)  # what is held, the model has not seen yet
            verdict = self._parts.gate.check(tool, call, self._parts.hooks.settled, untrusted=read)
            over = self._record.over()  # a person may have thought about it for long, or ended it all instead
            refused, shown = over if verdict.allowed else verdict.message or over, verdict.shown
        if refused or tool is None:
            yield from self._refuse(call, f"error: {refused}", refused)
        elif tool.deferred:
            self._record.deferred(call)
        else:
            yield from self._run(tool, call, shown)

    def _wrong(self, tool: Tool | None, call: ToolCall) -> str:
        """What is wrong with a call; empty when nothing is."""
        if self._parts.options.choice == "none":
            return "tools must not be used in this answer"
        if tool is None:
            names = ", ".join(self._tools) or "none"
            return f"there is no tool {call.name[:64]!r}; the tools are {names}"
        return validate(dict(call.arguments), {"additionalProperties": False, **tool.spec.parameters}) or ""

    def _hooked(self, tool: Tool, call: ToolCall) -> tuple[ToolCall, str]:
        """The call as the script's hook wants it to run, and why it must not."""
        try:
            changed = self._parts.hooks.before(call)
        except ToolError as e:
            return call, self._record.over() or str(e) or "refused"
        if changed is not call and (wrong := self._wrong(tool, changed)):
            raise HookError(f"before_tool changed a call of {call.name} so that it does not fit: {wrong}")
        return changed, ""

    def _run(self, tool: Tool, call: ToolCall, shown: str) -> Iterator[Event]:
        result: ToolResult | None = None
        session = self._parts.session.id if self._parts.session else ""
        context = ToolContext(
            self._parts.cancelled, call.id, session, loop=self._parts.loop, run=self._parts.run, shown=shown
        )  # fmt: skip
        with self._parts.spans.tool(tool, call) as (span, variables):
            for item in progressing(tool.invoke, call, context, self._parts.seconds_left(), variables):
                if isinstance(item, str):
                    yield ToolProgress(call, item)
                else:
                    result = item
            assert result is not None
            result = self._after(call, result)
            text, cut = self._cut(result)
            done = ToolDone(call, result.ok, text, result.data, result.seconds, result.cut + cut)
            self._parts.spans.ran(span, done)
        self._record.calls.append(done)
        self._record.replied(call, self._marked(tool, call, text), ok=result.ok, result=result, tool=tool)
        self._record.over()
        yield done

    def _after(self, call: ToolCall, result: ToolResult) -> ToolResult:
        try:
            return self._parts.hooks.after(call, result)
        except HookError:
            self._record.replied(call, "error: the tool ran, but its result is withheld", ok=False)
            raise

    def _cut(self, result: ToolResult) -> tuple[str, int]:
        """A result no longer than the limit and than half of the context that is left, and the characters that were cut."""
        left = self._parts.engine.context - len(self._parts.transcript.tokens)
        room = max(_LEAST_RESULT, int(left * 0.5) * _CHARS_PER_TOKEN)
        return cap(result.text, min(self._parts.limits.result, room))

    def _marked(self, tool: Tool, call: ToolCall, text: str) -> str:
        """A result as the model reads it. The run ends where the same call gives the same result too often."""
        key = json.dumps([call.name, dict(call.arguments), text], sort_keys=True, ensure_ascii=False)
        times = self._seen[key] = self._seen.get(key, 0) + 1
        if times >= self._parts.limits.repeats:
            self._record.end("repeated call", f"{call.name} was called {times} times with the same arguments and the same result")
        again = AGAIN if times > 1 else ""
        # What others wrote may hold words that sound like orders.
        data = DATA if text and (tool.untrusted or tool.origin != "script") else ""
        return f"{data}{text}{again}"
