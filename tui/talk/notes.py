"""What a Talk tells the screen. The agent's own events (``agent.events``) come unchanged beside these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.events import ToolsChanged
from tui.talk.entries import Entry
from tui.talk.setup import Setup

if TYPE_CHECKING:
    from agent.approval.policy import ApprovalRequest


@dataclass(frozen=True, slots=True)
class ToolFacts:
    """A tool that the agent has: whether it asks first, and where it comes from.

    Attributes:
        changed: which version of it a person has not seen yet, and no rule covers; "" of most.
    """

    name: str
    about: str
    approval: str
    origin: str
    changed: str = ""


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """A loaded model and its agent.

    Attributes:
        name, type, path: of the model file.
        context: tokens that there is room for; ``trained`` that the model was made for.
        memory: bytes that the model was expected to take.
        thinks: whether its thinking can be switched.
        tools: that it may call.
        problems: what does not work, a line each: MCP servers that did not connect, a template that cannot be used.
        confinement: what keeps commands inside the root, in words.
        small: whether it has none of the usual tools because it is too small for them.
    """

    name: str
    type: str
    path: str
    context: int
    trained: int
    memory: int
    thinks: bool
    tools: tuple[ToolFacts, ...] = ()
    problems: tuple[str, ...] = ()
    confinement: str = ""
    small: bool = False


@dataclass(frozen=True, slots=True)
class Opening:
    """A model is being made ready. ``part`` from 0 to 1."""

    model: str
    part: float = 0.0


@dataclass(frozen=True, slots=True)
class Opened:
    """The agent is ready."""

    facts: AgentFacts
    setup: Setup


@dataclass(frozen=True, slots=True)
class ToolsNow:
    """The agent has these tools from now on. ``what`` a server changed; None when a person accepted a change."""

    tools: tuple[ToolFacts, ...]
    what: ToolsChanged | None = None


@dataclass(frozen=True, slots=True)
class ReadingAhead:
    """The beginning of the next prompt is read while the person writes: ``done`` of ``total`` tokens are in the cache."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """That is over: it is read, or something else came first."""


@dataclass(frozen=True, slots=True)
class OpenFailed:
    """The agent could not be made; what was there before is gone when it was another model.

    Attributes:
        why: in one line.
        setup: that it was to be made of.
        smaller: whether it could be made with a smaller context.
    """

    why: str
    setup: Setup
    smaller: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """A whole conversation: a session was opened, or another branch of it.

    Attributes:
        session: its id; "" when nothing is kept yet.
        title: of the session.
        entries: from the first to the current leaf.
        at: the message to look at; None for the end.
    """

    session: str
    title: str
    entries: Sequence[Entry]
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Began:
    """The agent has taken up a message, or answers the last one again (``text`` is None then)."""

    text: str | None


@dataclass(frozen=True, slots=True)
class Settled:
    """A run is over, and this is how it is kept.

    Attributes:
        entries: the whole conversation.
        session, title: see ``Shown``.
        tokens: of the context that the conversation takes now.
    """

    entries: Sequence[Entry]
    session: str
    title: str
    tokens: int


@dataclass(frozen=True, slots=True)
class NotAsked:
    """A message could not be given to the agent; ``text`` belongs back to the person. ``too_long``: for the context."""

    text: str | None
    why: str
    too_long: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A tool call waits for a person's word. ``Talk.answer(number, ...)`` gives it."""

    number: int
    request: ApprovalRequest = field(compare=False)


@dataclass(frozen=True, slots=True)
class QuestionWithdrawn:
    """A question is taken back: the run was stopped."""

    number: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Something that was asked of the Talk could not be done."""

    why: str
