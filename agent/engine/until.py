"""How long somebody waits for a model."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

# How often a wait looks whether it is still wanted: that wish comes from another thread. Each look takes a core from the model.
LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Until:
    """What ends the waiting; without either, only the answer or the end of the worker does.

    Attributes:
        cancelled: when it is set, from any thread.
        deadline: on the monotonic clock.
    """

    cancelled: threading.Event | None = None
    deadline: float | None = None

    def over(self) -> str:
        """Why nothing is waited for any longer: "cancelled" or "time"; empty while it goes on."""
        if self.cancelled is not None and self.cancelled.is_set():
            return "cancelled"
        return "time" if self.deadline is not None and time.monotonic() >= self.deadline else ""

    def pause(self, most: float) -> float:
        """Seconds to wait until the next look, ``most`` of them at most."""
        if self.cancelled is not None or self.over():
            return min(most, LOOK_SECONDS)
        return most if self.deadline is None else min(most, max(0.0, self.deadline - time.monotonic()))


FOREVER = Until()
