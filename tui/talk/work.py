"""What the agent is doing, as far as its notes tell: the state of the status line. No widget knows more than this."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agent import events as e
from tui.status.monitor import DeviceState
from tui.status.status import Speed, Status, VoiceState
from tui.talk import notes as n


class Work:
    """Takes notes as they come and says how things stand."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._speed = Speed()
        self._status = Status()
        self.usage: e.Usage | None = None  # what the last answer cost
        self.ready = False  # whether there is a model

    def status(self) -> Status:
        """As it is now."""
        now = self._clock()
        status = self._status
        if status.state == "reading":
            return replace(status, left=self._speed.left(now))
        if status.state in ("writing", "thinking"):
            return replace(status, speed=self._speed.rate(now))
        return status

    def note(self, note: Any) -> None:
        match note:
            case n.Opening(model, part):
                self._set(state="loading", model=model.rpartition("/")[2], loaded=part)
            case e.Loading(part):
                self._set(state="loading", loaded=part)
            case n.Opened(facts, _):
                self.ready = True
                self._set(
                    state="ready", model=facts.name, quantization=facts.type, context=facts.context, loaded=None,
                    memory=self._status.memory or facts.memory or None,
                )  # fmt: skip
            case n.ReadingAhead(done, total) if self._status.state in ("ready", "ahead"):
                self._set(state="ahead", read=done, read_total=total)
            case n.ReadAhead() if self._status.state == "ahead":
                self._set(state="ready")
            case n.OpenFailed():
                self.ready = False
                self._set(state="no model", model="", quantization="", loaded=None, memory=None)
            case e.Prefill(done, total, cached):
                self._speed.read(done, total, self._clock())
                self._set(
                    state="reading", read=done, read_total=total, read_cached=cached, cached=cached, new=total - cached,
                    used=total, loaded=None,
                )  # fmt: skip
            case e.Thought() | e.Text() | e.CallForming():
                self._speed.add(note.tokens, self._clock())
                used = self._status.used
                self._set(
                    state="thinking" if isinstance(note, e.Thought) else "writing",
                    used=used + note.tokens if used is not None else None,
                )  # fmt: skip
            case e.CallReady(call):
                self._set(state="tool", tool=call.name)
            case e.Compacted(_, _, after):
                self._set(used=after)
            case n.Question():
                self._set(state="waiting")
            case e.Done(result):
                self._done(result.usage)
            case n.Settled(_, _, _, tokens):
                self._set(state="ready" if self.ready else "no model", used=tokens or self._status.used)
            case DeviceState():
                self._set(device=note)
            case n.Shown(entries=entries):
                self._set(used=None if entries else 0, cached=None, new=None)

    def asked(self) -> None:
        """Something was given to the agent."""
        self._speed.clear()
        if self.ready:
            self._set(state="reading", read=0, read_total=0, left=None)

    def answered(self) -> None:
        """A person has said whether a tool may run."""
        self._set(state="tool")

    def stopping(self) -> None:
        self._set(state="stopping")

    def voice(self, state: VoiceState) -> None:
        self._set(voice=state)

    def _done(self, usage: e.Usage) -> None:
        self.usage = usage
        self._set(
            speed=usage.decode_speed or None, memory=usage.memory or self._status.memory, cached=usage.cached_tokens,
            new=usage.prefill_tokens,
        )  # fmt: skip

    def _set(self, **changes: Any) -> None:
        self._status = replace(self._status, **changes)
