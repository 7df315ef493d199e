"""The loading of a model, as all see it who wait for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

from agent.engine.connection import Request, WorkerConnection
from agent.engine.until import Until
from agent.errors import EngineError, Unanswered

_LOOK_SECONDS = 1.0  # how often a wait looks after a worker that says nothing


class LoadState(Request):
    """How far it is. It is a state, not a message: everybody who looks sees it, from any thread and at any time.

    Attributes:
        part: how much is loaded, from 0 to 1.
        loaded: what the process says of the model, once it is there.
        refused: llama.cpp would do the same again with this file: it said so, or died of it.
    """

    def __init__(self, connection: WorkerConnection, number: int) -> None:
        super().__init__(connection, number)
        self.part = 0.0
        self.loaded: Mapping[str, Any] | None = None
        self.refused = False
        self._why: str | None = None
        self._news = threading.Condition()

    def take(self, message: dict[str, Any]) -> None:
        with self._news:
            if message["event"] == "progress":
                self.part = float(message["part"])
            elif message["event"] == "loaded":
                self.loaded = message["model"]
            elif message["event"] == "failed":
                self._why, self.refused = str(message["why"]), True
            elif message["event"] == "dead" and self._why is None:
                self._why, self.refused = str(self._connection.error()), self._connection.died_itself and self.loaded is None
            self._news.notify_all()

    def parts(self, until: Until) -> Iterator[float]:
        """How far it is, whenever that changes, until it is done.

        Raises:
            EngineError: the model could not be loaded, or the worker died since.
            Unanswered: ``until`` is over; the model goes on loading.
        """
        shown = 0.0
        while True:
            heard = self._connection.heard
            with self._news:
                done = self.loaded is not None or self._why is not None
                if not done and self.part == shown:
                    self._news.wait(until.pause(_LOOK_SECONDS))
                part, loaded, why = self.part, self.loaded, self._why
            if why is not None:
                raise EngineError(why)
            if loaded is not None:
                return
            if part != shown:
                shown = part
                yield part
            elif reason := until.over():
                self._connection.owes(heard)
                raise Unanswered(reason, "the model is not loaded yet; it goes on loading")
            self._connection.look(self.asked)
