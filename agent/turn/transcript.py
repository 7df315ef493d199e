"""A conversation as the tokens that the model has really read and written. It is only ever extended, so the cache stays good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from agent.dialects.write import write_turn
from agent.engine.handle import Engine
from agent.engine.until import FOREVER, Until
from agent.messages import Message, Segment, ToolCall, ToolSpec
from agent.templates.chat_template import ChatTemplate
from agent.templates.marks import unforged
from agent.turn.answered import open_calls


@dataclass(slots=True)
class Transcript:
    """The tokens of one conversation, and the messages that they stand for.

    The beginning comes from the model's template once; after that, what the model generated is kept token by token, and only what
    follows it is rendered. Nothing that was said is ever rendered a second time, unless the conversation is rebuilt.

    Attributes:
        tokens: what the cache holds or will hold, without the end-of-turn token of the last answer.
        prefix: how many tokens at the start depend on nothing but system prompt and tools.
        turns: of each assistant message, its tokens as they were generated, or as they would have been.
        now: the date that the template writes; it stays, for a new one would change every token behind it.
        held: messages that wait for the next question, such as results of calls that were not run.

    Whatever asks the engine raises Unanswered when ``until`` is over and its worker does not answer.
    """

    engine: Engine
    template: ChatTemplate
    tools: tuple[ToolSpec, ...]  # in a fixed order
    options: dict[str, Any] = field(default_factory=dict)  # for the template
    messages: list[Message] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    prefix: int = 0
    turns: dict[int, list[int]] = field(default_factory=dict)
    now: datetime = field(default_factory=datetime.now)
    held: list[Message] = field(default_factory=list)
    marks: tuple[str, ...] = ()  # of roles, which are plain text to this model: only the template may write them
    until: Until = FOREVER  # how long the engine is waited for; each run says it

    @property
    def by_name(self) -> Mapping[str, ToolSpec]:
        return {tool.name: tool for tool in self.tools}

    @property
    def open_calls(self) -> tuple[ToolCall, ...]:
        """The calls of the last answer that have no result yet."""
        last = self.messages[-1:]
        return open_calls([*last, *self.held]) if last and last[0].role == "assistant" else ()

    def ask(self, new: Sequence[Message]) -> None:
        """Add what was said to the model, after what was held; the tokens then end where its answer begins.

        What fails here (a template that refuses, an engine that dies) leaves the transcript as it was.
        """
        new = [*self.held, *new]
        previous = next((m for m in reversed(self.messages) if m.role == "assistant"), None)
        if previous is not None:
            self.tokens += self._tokens_of(self.template.continuation(previous, new, self.tools, self.options, now=self.now))
        else:
            self._begin([*self.messages, *new])
        self.messages += new
        self.held = []

    def ahead(self) -> tuple[list[int], int]:
        """The tokens that the next answer needs whatever is asked, and how many of them are ``prefix``: the conversation, or
        where none has begun, what system prompt and tools make."""
        if self.tokens:
            return list(self.tokens), self.prefix
        tokens = self._head([*(m for m in self.messages if m.role == "system"), Message("user", "a")])
        count = self._fixed(tokens, self.messages)
        return tokens[:count], count

    def answer(self, message: Message, generated: Sequence[int]) -> None:
        """Add what the model said, with the tokens it said it in."""
        self.turns[len(self.messages)] = list(generated)
        self.messages.append(message)
        self.tokens += generated

    def extend(self, messages: Sequence[Message], turns: Mapping[int, Sequence[int]] | None = None) -> None:
        """Add messages of all roles; ``turns`` as for ``rebuild``. When the last is no assistant's, its answer begins here."""
        pending: list[Message] = []
        for i, message in enumerate(messages):
            if message.role != "assistant":
                pending.append(message)
                continue
            self.ask(pending or ([] if self.held else [Message("user", "")]))
            pending = []
            kept = (turns or {}).get(i)
            self.answer(message, list(kept) if kept is not None else self.written(message))
        if pending:
            self.ask(pending)

    def rebuild(self, messages: Sequence[Message], turns: Mapping[int, Sequence[int]] | None = None) -> None:
        """Begin again with these messages: after a compaction, on another branch, or when a session is taken up again.

        ``turns``: tokens of assistant messages as this very model generated them, by place in ``messages``.
        """
        self.messages, self.tokens, self.turns, self.held = [], [], {}, []
        self.extend(messages, turns)

    def take_up(self, messages: Sequence[Message], turns: Mapping[int, Sequence[int]]) -> None:
        """``rebuild``, but what nobody has answered waits for the next question: the model is not asked for it now."""
        said = max((i + 1 for i, m in enumerate(messages) if m.role in ("assistant", "system")), default=0)
        if any(m.role != "system" for m in messages[:said]):
            self.rebuild(messages[:said], turns)
        else:
            self.rebuild([])
            self.messages = list(messages[:said])
        self.held = list(messages[said:])

    def take_back(self) -> bool:
        """Drop an answer at the end that was broken off before its first word; the question waits again. False: there is none."""
        if self.held or self.messages[-1:] != [Message("assistant")]:
            return False
        kept = self.copy()
        try:
            self.take_up(kept.messages[:-1], kept.turns)
        except BaseException:
            self.go_back(kept)
            raise
        return True

    def changed(self, system: str, tools: Sequence[ToolSpec], options: Mapping[str, Any]) -> Transcript:
        """The same conversation under another system prompt, with other tools, other options."""
        start = [Message("system", system)] if system else []
        kept = [(m, self.turns.get(i)) for i, m in enumerate(self.messages) if m.role != "system"]
        turns = {len(start) + i: turn for i, (_, turn) in enumerate(kept) if turn is not None}
        other = replace(self, tools=tuple(tools), options=dict(options), prefix=0)
        other.take_up([*start, *(m for m, _ in kept), *self.held], turns)
        return other

    @property
    def system(self) -> str:
        """The system prompt."""
        return next((m.text for m in self.messages if m.role == "system"), "")

    def written(self, message: Message) -> list[int]:
        """An assistant's message as the model would have written it."""
        profile = self.template.profile
        return self._tokens_of(write_turn(profile.dialect, profile.thinking, message, self.by_name))

    def copy(self) -> Transcript:
        """The same, to go back to."""
        return replace(
            self, messages=list(self.messages), tokens=list(self.tokens), turns=dict(self.turns), held=list(self.held)
        )  # fmt: skip

    def go_back(self, to: Transcript) -> None:
        """Be again as ``copy`` found it."""
        self.messages, self.tokens, self.turns = list(to.messages), list(to.tokens), dict(to.turns)
        self.held, self.prefix = list(to.held), to.prefix

    def _begin(self, messages: Sequence[Message]) -> None:
        tokens = self._head(messages)
        self.prefix = self._fixed(tokens, messages)
        self.tokens = tokens

    def _fixed(self, tokens: Sequence[int], messages: Sequence[Message]) -> int:
        """How many tokens at the start would be the same whatever the user said first."""
        other = self._head([*(m for m in messages if m.role == "system"), Message("user", "\u2026")])
        return next((i for i, (a, b) in enumerate(zip(tokens, other, strict=False)) if a != b), 0)

    def _head(self, messages: Sequence[Message]) -> list[int]:
        return self._tokenized(self.template.head(messages, self.tools, self.options, now=self.now), None)

    def _tokens_of(self, segments: Sequence[Segment]) -> list[int]:
        return self._tokenized(segments, self.tokens[-1] if self.tokens else None)

    def _tokenized(self, segments: Sequence[Segment], after: int | None) -> list[int]:
        return self.engine.tokenize(unforged(segments, self.marks), after=after, until=self.until)
