"""What there is to say about model, machine and voice, and how fast the model is."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from tui.status.monitor import DeviceState

ModelState = Literal["ready", "loading", "ahead", "reading", "thinking", "writing", "tool", "waiting", "stopping", "no model"]

WINDOW = 3.0  # seconds over which the live speed is taken
_LEAST = 0.3  # seconds; over less a speed is noise
_SILENCE = 0.5  # seconds of prefill before its end is foretold
_PATIENCE = 1.0  # seconds without a token, after which the live speed falls
_STEP = 0.4  # how far a new forecast moves the old one


@dataclass(frozen=True, slots=True)
class VoiceState:
    """What the voice does.

    Attributes:
        kind: "off"; "missing" when there is no engine; "starting" while it gets ready; "listening".
        level: how loud it is while listening, from 0 to 1; None when the engine does not say.
    """

    kind: Literal["off", "missing", "starting", "listening"] = "off"
    level: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that the status line may say. None, "" and totals of 0 mean that it is not known.

    Attributes:
        state: what the model does; "reading" is prefill, "ahead" is prefill before anything was asked, "waiting" is for a
            person's approval.
        model, quantization: as the file says; untrusted.
        tool: the one that runs in state "tool"; untrusted.
        loaded: part of the model that is loaded, 0 to 1.
        read, read_total, read_cached: tokens of the prompt that are in the cache now, of all, that were there before.
        left: seconds until the prompt is read.
        speed: tokens per second; live, or of the last answer.
        used, context: tokens of the context that are taken, and its size.
        cached, new: tokens of the last prompt that were in the cache, and that had to be computed.
        memory: bytes that the model's process holds.
        queued: messages that wait for their turn.
    """

    state: ModelState = "no model"
    model: str = ""
    quantization: str = ""
    tool: str = ""
    loaded: float | None = None
    read: int = 0
    read_total: int = 0
    read_cached: int = 0
    left: float | None = None
    speed: float | None = None
    used: int | None = None
    context: int | None = None
    cached: int | None = None
    new: int | None = None
    memory: int | None = None
    queued: int = 0
    device: DeviceState = field(default_factory=DeviceState)
    voice: VoiceState = field(default_factory=VoiceState)


class Speed:
    """How fast tokens come, and when a prompt will be read. Times are of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Another answer begins."""
        self._count = 0
        self._samples: deque[tuple[float, int]] = deque()  # when, and tokens until then
        self._read_from = (0.0, 0)
        self._read_now = (0.0, 0)
        self._total = 0
        self._end: float | None = None

    def add(self, tokens: int, now: float) -> None:
        """So many more tokens of the answer have come."""
        self._count += tokens
        self._samples.append((now, self._count))
        while len(self._samples) > 2 and self._samples[0][0] < now - WINDOW:
            self._samples.popleft()

    def rate(self, now: float) -> float | None:
        """Tokens per second of the answer, over the last three seconds; None while that cannot be said."""
        if len(self._samples) < 2:
            return None
        (first, before), (last, count) = self._samples[0], self._samples[-1]
        span = max(last, now - _PATIENCE) - first  # the time since the last token counts only when it grows long
        return (count - before) / span if span >= _LEAST else None

    def read(self, done: int, total: int, now: float) -> None:
        """So many of the prompt's tokens are in the cache; the first call of a prompt says how many were there before."""
        if total != self._total or done < self._read_now[1] or self._read_now[1] >= self._total:
            self._total, self._end, self._read_from = total, None, (now, done)
        self._read_now = (now, done)
        rate = self.read_rate()
        if rate is not None:
            end = now + (total - done) / rate
            self._end = end if self._end is None else self._end + _STEP * (end - self._end)

    def read_rate(self) -> float | None:
        """Tokens per second of the prefill so far; None in its first half second."""
        (began, before), (now, done) = self._read_from, self._read_now
        if now - began < _SILENCE or done <= before:
            return None
        return (done - before) / (now - began)

    def left(self, now: float) -> float | None:
        """Seconds until the prompt is read; None while that cannot be said."""
        return max(0.0, self._end - now) if self._end is not None else None
