"""What one run may touch, and nothing else. An agent makes it anew for each run."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from agent.approval.policy import Gate
from agent.engine.handle import Engine
from agent.engine.sampling import Sampling
from agent.limits import Limits
from agent.sessions.session import Session
from agent.templates.chat_template import ChatTemplate
from agent.tools.define import Tool
from agent.turn.output import Output
from agent.turn.transcript import Transcript


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of an agent that a run uses, and what was asked of the run.

    Attributes:
        engine, template: of the model.
        transcript: the conversation; the run extends it.
        conversation: its name in the engine's cache.
        session: where its messages are kept; None for nowhere.
        tools: in the order in which the model sees them.
        gate: decides what may run.
        sampling, limits, constrain, max_thinking: as the agent has them.
        output: what the answer must be an object of; None for words.
        choice: "auto", "required", "none" or the name of a tool.
        cancelled: set from any thread, it ends the run.
        started: when the run began, on the monotonic clock.
    """

    engine: Engine
    template: ChatTemplate
    transcript: Transcript
    conversation: str
    session: Session | None
    tools: tuple[Tool, ...]
    gate: Gate
    sampling: Sampling
    limits: Limits
    constrain: bool
    max_thinking: int | None
    output: Output | None
    choice: str
    cancelled: threading.Event
    started: float

    def seconds_left(self) -> float | None:
        """Until the time of the run is up; None without a limit."""
        if self.limits.seconds is None:
            return None
        return max(0.0, self.started + self.limits.seconds - time.monotonic())
