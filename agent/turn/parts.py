"""What one run may touch, and nothing else. An agent makes it anew for each run."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.approval.policy import Gate
from agent.engine.handle import Engine
from agent.limits import Limits
from agent.sessions.session import Session
from agent.templates.chat_template import ChatTemplate
from agent.tools.define import Tool
from agent.turn.hooks import Hooks
from agent.turn.options import CheckedOptions
from agent.turn.spans import Spans
from agent.turn.transcript import Transcript

if TYPE_CHECKING:
    import asyncio


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of an agent that a run uses, and what was asked of the run."""

    engine: Engine
    template: ChatTemplate
    transcript: Transcript  # the run extends it
    conversation: str  # its name in the engine's cache
    session: Session | None  # where its messages are kept
    tools: tuple[Tool, ...]  # in the order in which the model sees them
    gate: Gate
    constrain: bool
    max_thinking: int | None
    cancelled: threading.Event  # set from any thread, it ends the run
    started: float  # on the monotonic clock
    options: CheckedOptions  # of this run
    hooks: Hooks = field(default_factory=Hooks)
    spans: Spans = field(default_factory=Spans)
    loop: asyncio.AbstractEventLoop | None = None  # where tools' coroutines are awaited; None, in loops of their own

    @property
    def limits(self) -> Limits:
        return self.options.limits

    @property
    def run(self) -> str:
        """A name that no other run has."""
        return f"{os.getpid()}-{self.started!r}"

    def seconds_left(self) -> float | None:
        """Until the time of the run is up; None without a limit."""
        if self.limits.seconds is None:
            return None
        return max(0.0, self.started + self.limits.seconds - time.monotonic())
