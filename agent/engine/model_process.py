"""A child process that holds one loaded model, and its life: it is started again, when it is needed, after it died or hung."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

from agent.engine.connection import Request, WorkerConnection
from agent.engine.until import FOREVER, Until
from agent.errors import EngineError, Unanswered
from agent.models.file import ModelFile, note_checked_weights, weights_are_checked

log = logging.getLogger(__name__)

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


class ModelProcess:
    """The handle of such a process. Any thread may use it.

    Python starts there at once, while the caller looks at the file; ``_load_model`` then says what is to be loaded.

    Args:
        module: what runs in the process.
        arguments: of its command line.

    Attributes:
        file: facts of the model.
        restarts: how often the process was started again.
    """

    kind: ClassVar[str]  # what a person calls the handle
    file: ModelFile

    def __init__(self, module: str, *arguments: str) -> None:
        self.restarts = 0
        self._process = os.getpid()
        self._lock = threading.Lock()  # held while a process is started, never while one is waited for
        self._told: LoadState | None = None  # the load that the log speaks of
        self._refused: str | None = None
        self._closed = False
        self._start = partial(WorkerConnection, module, *arguments)
        self._connection = self._start()

    def _load_model(self, message: dict[str, Any]) -> None:
        """Ask the process to load the model; ``message`` is as it wants it, and is sent again to each new process."""
        self._load_message = message | {"check_weights": not weights_are_checked(self.file)}
        self._load = self._connection.ask(self._load_message, LoadState)

    def loading(self, until: Until = FOREVER) -> Iterator[float]:
        """How far the load is, from 0 to 1, until it is done; each who waits is told. EngineError when it cannot be loaded.

        Raises Unanswered when ``until`` is over before it is; the model goes on loading.
        """
        connection, load = self._worker(until)
        yield from self._parts(connection, load, until)

    def _ready(self, until: Until) -> tuple[WorkerConnection, Mapping[str, Any]]:
        """The connection to a process that has the model, and what that said of it."""
        connection, load = self._worker(until)
        for _ in self._parts(connection, load, until):
            pass
        assert load.loaded is not None
        return connection, load.loaded

    def _parts(self, connection: WorkerConnection, load: LoadState, until: Until) -> Iterator[float]:
        shown = False
        try:
            for part in load.parts(until):
                shown = True
                yield part
        except Unanswered:
            raise
        except EngineError as e:
            if self._closed or load.loaded is not None:  # it died after that
                raise
            why = f"{self.file.path} was not loaded: {e}{connection.complaint()}"
            if load.refused:
                why = self._refused = self._refused or why
            raise EngineError(why) from None
        if self._told is not load:
            self._told = load
            note_checked_weights(self.file)
            log.info("%s %s", self.file.name, self._words(load.loaded or {}))
            if not shown:  # the first who looks is told in any case
                yield 1.0

    def _words(self, loaded: Mapping[str, Any]) -> str:
        """What the log says of a model that has just been loaded."""
        return "is loaded"

    def _worker(self, until: Until) -> tuple[WorkerConnection, LoadState]:
        """The connection to the process, which is started again if it died since, or hangs; and the load of the model in it."""
        if os.getpid() != self._process:
            raise EngineError(
                f"this {self.kind} belongs to the process that made it ({self._process}); a forked process makes its own"
            )
        if self._refused is not None and not self._closed:
            raise EngineError(self._refused)
        self._connection.settle(until, self._load.loaded is None)
        with self._lock:
            if self._closed:
                raise EngineError(f"this {self.kind} is closed")
            if self._connection.ended is not None:
                self.restarts += 1
                log.info("the worker is started again, restart %d", self.restarts)
                self._connection = self._start()
                self._load = self._connection.ask(self._load_message, LoadState)
            return self._connection, self._load

    def close(self) -> None:
        """End the process, within seconds even where it hangs. A closed handle cannot be used again."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._closed = True
        if not hasattr(self, "_load"):
            self._connection.child.kill()  # it was asked for nothing, and has nothing to end
        self._connection.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        connection = getattr(self, "_connection", None)
        if connection is not None and not self._closed and os.getpid() == self._process:
            with contextlib.suppress(AttributeError):  # it was never started
                connection.child.kill()
