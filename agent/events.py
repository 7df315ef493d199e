"""What happens while an agent works, as it happens. A screen shows these, a log keeps them, a script matches on their type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from agent.messages import Message, ToolCall

_NAMED = 5  # tools of a kind that a line names


@dataclass(frozen=True, slots=True)
class Loading:
    """The model is being read. ``part`` from 0 to 1."""

    part: float


@dataclass(frozen=True, slots=True)
class Prefill:
    """The prompt is being computed.

    Attributes:
        done: tokens that are in the cache.
        total: tokens of the whole prompt.
        cached: tokens that were there before, from memory or disk.
    """

    done: int
    total: int
    cached: int


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, and how likely the model found it: in its own distribution, before sampling and schema have their say.

    Attributes:
        text: what it stands for; a character that lies in several tokens is U+FFFD in each.
        logprob: natural logarithm of its probability; None for a token that was not drawn but followed from schema or dialect.
        top: the likeliest tokens in its place, the likeliest first, as many as were asked for; empty for a forced one.
        raw: the bytes of ``text``.
        id: in the model's vocabulary.
    """

    text: str
    logprob: float | None
    top: tuple[TokenLogprob, ...] = ()
    raw: bytes = b""
    id: int = -1

    @property
    def forced(self) -> bool:
        """Whether it was not drawn."""
        return self.logprob is None

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with the names of OpenAI's form."""
        data: dict[str, Any] = {"token": self.text, "bytes": list(self.raw), "logprob": self.logprob}
        return data | ({"top_logprobs": [one.to_dict() for one in self.top]} if self.top else {})


@dataclass(frozen=True, slots=True)
class Text:
    """The next words of the answer.

    Attributes:
        tokens: how many were chosen or forced since the last event that has them; for the speed, and no part of what happened.
        logprobs: of these tokens, where they were asked for.
    """

    text: str
    tokens: int = field(default=0, compare=False, kw_only=True)
    logprobs: tuple[TokenLogprob, ...] = field(default=(), compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Thought:
    """The next words of what the model thinks before it answers; ``tokens`` and ``logprobs`` as in Text."""

    text: str
    tokens: int = field(default=0, compare=False, kw_only=True)
    logprobs: tuple[TokenLogprob, ...] = field(default=(), compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class CallForming:
    """A tool call takes shape: first its name, then more of its arguments, as the model writes them; the rest as in Text."""

    index: int
    name: str
    text: str = ""
    tokens: int = field(default=0, compare=False, kw_only=True)
    logprobs: tuple[TokenLogprob, ...] = field(default=(), compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class CallReady:
    """A call is whole. It has not been approved yet."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class CallRefused:
    """A call that will not run, and why: denied, unknown, invalid arguments, broken off. The model is told."""

    call: ToolCall
    why: str


@dataclass(frozen=True, slots=True)
class ToolProgress:
    """A running tool says how far it is."""

    call: ToolCall
    text: str


@dataclass(frozen=True, slots=True)
class ToolDone:
    """A tool has answered.

    Attributes:
        call: what was asked.
        ok: whether it worked.
        text: what the model is told.
        data: the result as JSON, where the tool gives one.
        seconds: how long it took.
        cut: characters that were left out of ``text`` for want of room.
        answered: False of a call in ``Result.calls`` that nothing ran: the script answers it.
    """

    call: ToolCall
    ok: bool
    text: str
    data: Any = None
    seconds: float = 0.0
    cut: int = 0
    answered: bool = True

    @property
    def name(self) -> str:
        """Of the tool."""
        return self.call.name

    @property
    def arguments(self) -> Mapping[str, Any]:
        """What the tool was called with, by name."""
        return self.call.arguments


@dataclass(frozen=True, slots=True)
class Compacted:
    """The conversation no longer fitted the context, and something of it was given up; ``what`` says what."""

    what: str
    tokens_before: int
    tokens_after: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something went wrong and the agent went on: a restarted engine, an answer broken off, a lost MCP server."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolsChanged:
    """MCP servers have other tools than before; they hold from this run on. Names as the model knows them, ``server__tool``.

    Attributes:
        new: were not there before.
        changed: are described in other words, or take other arguments: no rule covers them until a person has accepted them.
        gone: are not there any more.
    """

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """In one line, which names the first of each."""
        parts = [("new", self.new), ("changed", self.changed), ("gone", self.gone)]
        return f"the tools of MCP servers are others now: {'; '.join(_first(word, names) for word, names in parts if names)}"


def _first(word: str, names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{word} {', '.join(names[:_NAMED])}{more}"


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer cost; of several rounds, the sum.

    Attributes:
        prompt_tokens: tokens of the prompts.
        cached_tokens: of these, how many were in the cache already.
        prefill_tokens: how many were computed.
        generated_tokens: tokens of the answers.
        forced_tokens: of these, how many were not drawn but followed from schema and dialect.
        prefill_seconds, decode_seconds: of computation.
        first_token_seconds: from the beginning of the run to the first token that the model gave.
        seconds: of the whole run, tools included.
        memory: bytes that the model's process holds.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prefill_tokens: int = 0
    generated_tokens: int = 0
    forced_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    first_token_seconds: float = 0.0
    seconds: float = 0.0
    memory: int = 0

    @property
    def prefill_speed(self) -> float:
        """Tokens per second; 0 when nothing was computed."""
        return self.prefill_tokens / self.prefill_seconds if self.prefill_seconds else 0.0

    @property
    def decode_speed(self) -> float:
        """Tokens per second; 0 when nothing was generated."""
        return self.generated_tokens / self.decode_seconds if self.decode_seconds else 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended.

    Attributes:
        text: the answer.
        reason: "done"; or what ended it: "length", "rounds", "time", "context", "cancelled", "loop", "repeated call", "error"; or
            "call": the script has to answer those of ``calls`` that are not ``answered``.
        messages: what the run added to the conversation, in order.
        calls: the tool calls that ran, with their results, in order, and those that the script answers.
        value: with a schema, the validated object; None otherwise.
        usage: what it cost.
        error: with reason "error", why in one line.
        stop: the text of ``stop=`` that ended the answer; empty when none did.
        logprobs: of the tokens of the answer that ``text`` is, thoughts and calls included, where they were asked for.
    """

    text: str
    reason: str
    messages: tuple[Message, ...] = ()
    calls: tuple[ToolDone, ...] = ()
    value: Any = None
    usage: Usage = field(default_factory=Usage)
    error: str = ""
    stop: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        calls = [
            {"name": c.call.name, "arguments": dict(c.call.arguments), "ok": c.ok, "result": c.text, "seconds": c.seconds}
            for c in self.calls
        ]
        data: dict[str, Any] = {"text": self.text, "reason": self.reason, "calls": calls, "usage": asdict(self.usage)}
        if self.logprobs:
            data["logprobs"] = [one.to_dict() for one in self.logprobs]
        return data | {name: said for name, said in (("error", self.error), ("stop", self.stop)) if said}


@dataclass(frozen=True, slots=True)
class Done:
    """The last event of every run."""

    result: Result


Event = (
    Loading | Prefill | Text | Thought | CallForming | CallReady | CallRefused | ToolProgress | ToolDone | Compacted | Problem
    | ToolsChanged | Done
)  # fmt: skip
