"""What a run has added to the conversation, what it cost, and why it ended. Every message is kept in the session as it comes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from agent.approval.trust import sourced
from agent.events import Result, TokenLogprob, ToolDone, Usage
from agent.messages import Message, ToolCall
from agent.tools.define import Tool
from agent.tools.result import ToolResult
from agent.turn.answer import Generation
from agent.turn.answered import INTERRUPTED
from agent.turn.parts import Parts

# What the answers of a run cost together.
_SUMMED = (
    "prompt_tokens", "cached_tokens", "prefill_tokens", "generated_tokens", "forced_tokens", "prefill_seconds", "decode_seconds",
)  # fmt: skip
_SAVE_SECONDS = 1.0  # how much of an unfinished answer a killed process may lose


class Record:
    """The state of one run."""

    def __init__(self, parts: Parts) -> None:
        self.reason = self.error = ""  # why the run is over, and more about it; empty while it goes on
        self.value: Any = None  # the object that the answer is, where one was asked for
        self.calls: list[ToolDone] = []  # that ran, or wait for the script
        self._parts = parts
        self._messages: list[Message] = []
        self._text = self._stop = ""  # of the last answer
        self._logprobs: tuple[TokenLogprob, ...] = ()
        self._open: list[ToolCall] = []  # calls that have no result yet
        self._usage = Usage()
        self._stored: int | None = None  # the session's number of the answer in the making
        self._saved = 0.0

    def end(self, reason: str, error: str = "") -> None:
        """The run is over."""
        self.reason, self.error = reason, error

    def over(self) -> str:
        """Why nothing more may be begun: the run was cancelled, its time is up, or it is over. Empty while it goes on."""
        if not self.reason and self._parts.cancelled.is_set():
            self.reason = "cancelled"
        elif not self.reason and self._parts.seconds_left() == 0:
            self.reason = "time"
        return f"not run: the run was ended ({self.reason})" if self.reason else ""

    def asked(self, messages: Iterable[Message]) -> None:
        """Messages that the model is asked with, which the transcript has already."""
        for message in messages:
            self._messages.append(message)
            if self._parts.session is not None:
                self._parts.session.append(message)

    def replied(self, call: ToolCall, text: str, *, ok: bool, result: ToolResult | None = None, tool: Tool | None = None) -> None:
        """What a call gave: the result of a tool, or a word of Sprig's own. The transcript holds it until the next question or
        the next round."""
        images = (result.image,) if result is not None and result.image else ()
        message = Message("tool", text, call_id=call.id, name=call.name, images=images)
        if result is not None:
            message = sourced(message, tool)
        self._open = [c for c in self._open if c.id != call.id]
        self._messages.append(message)
        self._parts.transcript.held.append(message)
        if self._parts.session is not None:
            data, seconds = (result.data, result.seconds) if result is not None else (None, None)
            self._parts.session.append(message, ok=ok, data=data, seconds=seconds)

    def deferred(self, call: ToolCall) -> None:
        """A call that the script answers: it stays open when the run is over."""
        self._open = [c for c in self._open if c.id != call.id]
        self.calls.append(ToolDone(call, ok=False, text="", answered=False))

    def settle(self) -> None:
        """No call stays without a result, whatever ended the run."""
        for call in list(self._open):
            self.replied(call, INTERRUPTED, ok=False)

    # An answer: begun, saved on the way, finished.

    def begin_answer(self, answer: Generation) -> None:
        session = self._parts.session
        self._stored = session.append(answer.message, state="partial") if session is not None else None
        self._saved = time.monotonic()

    def save_answer(self, answer: Generation) -> None:
        """Write what there is of the answer, where it was not written just now."""
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self._saved = time.monotonic()
            self._update(answer, answer.message)

    def finish_answer(self, answer: Generation) -> None:
        """Keep the answer, however it ended."""
        message = answer.kept_message
        self._text, self._stop, self._logprobs = message.text, answer.stops.found, tuple(answer.logprobs)
        self._parts.transcript.answer(message, answer.tokens)
        self._messages.append(message)
        self._open = list(message.calls)
        if answer.end is not None:
            timing = answer.end.timing
            cost = {**timing, "prefill_tokens": timing["prompt_tokens"] - timing["cached_tokens"]}
            sums = {name: getattr(self._usage, name) + cost[name] for name in _SUMMED}
            self._usage = replace(self._usage, **sums, memory=answer.end.resident)
        self._update(answer, message, complete=answer.end is not None and answer.end.reason == "stop")

    def _update(self, answer: Generation, message: Message, *, complete: bool = False) -> None:
        if self._stored is None or self._parts.session is None:
            return
        timing = answer.end.timing if answer.end is not None else {}
        usage = {k: v for k, v in timing.items() if isinstance(v, int | float)}
        self._parts.session.update(
            self._stored, message, usage=usage or None, tokens=answer.tokens, fingerprint=self._parts.engine.file.identity,
            state="complete" if complete else None,
        )  # fmt: skip

    def first_token(self) -> None:
        """The model has said something."""
        if not self._usage.first_token_seconds:
            self._usage = replace(self._usage, first_token_seconds=time.monotonic() - self._parts.started)

    def result(self) -> Result:
        usage = replace(self._usage, seconds=time.monotonic() - self._parts.started)
        return Result(
            self._text, self.reason or "done", tuple(self._messages), tuple(self.calls), self.value, usage, self.error,
            stop=self._stop, logprobs=self._logprobs,
        )  # fmt: skip
