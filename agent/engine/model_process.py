"""A child process that holds one loaded model, and its life: it is started again, when it is needed, after it died or hung."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

from agent.engine.connection import WorkerConnection
from agent.engine.load import LoadState
from agent.engine.until import FOREVER, Until
from agent.errors import EngineError, Unanswered
from agent.models.file import ModelFile

log = logging.getLogger(__name__)


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
        self._load_message = message
        self._load = self._connection.ask(message, LoadState)

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
