"""What is read of a conversation before anybody asks, and who uses the conversation meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.engine.handle import EndStep, Step
from agent.errors import SprigError
from agent.events import Prefill


class InUse:
    """By whom a conversation is used: one run at a time, or for a moment the making of tokens, which a run waits for."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._run = self._moment = False
        self._reading: set[threading.Event] = set()

    @contextmanager
    def run(self) -> Iterator[None]:
        """SprigError when another run uses it."""
        with self._change:
            self._change.wait_for(lambda: not self._moment)
            if self._run:
                raise SprigError(
                    "this agent is answering already; wait for it, cancel it, or make another agent on the same engine"
                )
            self._run = True
        try:
            yield
        finally:
            with self._change:
                self._run = False

    @contextmanager
    def moment(self) -> Iterator[bool]:
        """Whether it can be used now: not while a run uses it."""
        with self._change:
            self._change.wait_for(lambda: not self._moment)
            free = self._moment = not self._run
        try:
            yield free
        finally:
            if free:
                with self._change:
                    self._moment = False
                    self._change.notify_all()

    @contextmanager
    def reading(self, stop: threading.Event) -> Iterator[threading.Event]:
        """What ends a reading ahead; ``stop_reading`` sets it."""
        self._reading.add(stop)
        try:
            yield stop
        finally:
            self._reading.discard(stop)

    def stop_reading(self) -> None:
        """End all reading ahead."""
        for stop in tuple(self._reading):
            stop.set()


def read(steps: Iterator[Step], tell: Callable[[Prefill], object]) -> bool:
    """Tell how far the engine is; returns whether it has read everything."""
    reason = ""
    for step in steps:
        if isinstance(step, Prefill):
            tell(step)
        elif isinstance(step, EndStep):
            reason = step.reason
    return reason == "length"
