"""One worker process and the talk with it: requests go out, a thread hands each answer to whoever waits for it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

from agent.children.launch import launch, tail
from agent.children.wire import Wire
from agent.engine.last_words import last_words
from agent.errors import EngineError

log = logging.getLogger(__name__)

_LAST = frozenset({"loaded", "tokens", "end", "failed", "dead"})  # events after which nothing more comes
_LOOK_SECONDS = 0.02  # how often a wait looks whether its answer is still wanted
_END_SECONDS = 10  # that a worker gets to end: it may be writing a prefix


class WorkerConnection:
    """A worker, from its start to its end. Its requests may come from several threads."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.ended: str | None = None  # why the worker is gone, in one line
        self._closed = False
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._requests: WeakValueDictionary[int, Request] = WeakValueDictionary()  # one that nobody holds is not answered
        # Threads that spin while they wait for each other starve when another program wants the cores: a prompt then takes
        # several times as long. Asleep at once, they are a quarter slower on an idle machine. So they spin for some 0.1 ms.
        env = {"GOMP_SPINCOUNT": "10000", **os.environ, "GGML_NO_BACKTRACE": "1"}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the child)
        self._socket, theirs = socket.socketpair()
        with theirs:
            self.child = launch(module, arguments, env, stdin=theirs.fileno(), stdout=self._log, stderr=self._log)
        log.info("worker %d started", self.child.pid)
        self._wire = Wire(self._socket.fileno())
        self._listener = threading.Thread(target=self._listen, daemon=True, name="engine")
        self._listener.start()

    def ask(self, message: Mapping[str, Any]) -> Request:
        """Send a request. Its answers are kept as long as somebody holds it."""
        with self._lock:
            request = Request(self, next(self._numbers))
            self._requests[request.number] = request
        if self.ended is not None:
            request.answers.put({"event": "dead"})
        self.send({**message, "id": request.number})
        return request

    def send(self, message: Mapping[str, Any]) -> None:
        """Send what has no answer. Raises EngineError when the connection is closed; of a worker that died, the requests tell."""
        try:
            with self._send_lock:
                if self.ended is None:
                    self._wire.send(message)
        except OSError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(_END_SECONDS)
        if self._closed:
            raise self.error()

    def error(self) -> EngineError:
        """Why there are no more answers."""
        if self._closed:
            return EngineError("this engine is closed")
        return EngineError(f"the model's process ended ({self.ended}); it starts again when it is needed")

    def complaint(self) -> str:
        """What llama.cpp has last complained of, in brackets; empty where it has not, or is gone."""
        with contextlib.suppress(ValueError, OSError):  # the log of a worker that is gone is closed
            if self.ended is None and (said := tail(self._log)).strip():
                return f" ({last_words(0, said)})"
        return ""

    def kill(self) -> None:
        """End a worker that hangs; afterwards it is known to be gone."""
        self.child.kill()
        self._listener.join(_END_SECONDS)

    def close(self) -> None:
        """Tell the worker to end, and wait for it."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._listener.join()

    def _listen(self) -> None:
        """In a thread, to the worker's end: it hands out answers, and at last says why there are no more."""
        with contextlib.suppress(EOFError):
            while True:
                message = self._wire.receive()
                with self._lock:
                    request = self._requests.get(message.get("id", 0))
                if request is not None:
                    request.answers.put(message)
        try:
            status = self.child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.child.kill()
            status = self.child.wait()
        why = last_words(status, tail(self._log))
        log.info("worker %d ended: %s", self.child.pid, "the engine was closed" if self._closed else why)
        with self._lock:
            self.ended = why
            waiting = list(self._requests.values())
        for request in waiting:
            request.answers.put({"event": "dead"})
        with self._send_lock:
            self._socket.close()
        self._log.close()


class Request:
    """A request to a worker, and the answers to it that have come and are not read yet."""

    def __init__(self, connection: WorkerConnection, number: int) -> None:
        self.number = number
        self._connection = connection
        self.answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def cancel(self) -> None:
        """Ask the worker to stop; what comes then is read as before."""
        self._connection.send({"op": "cancel", "id": self.number})

    def answer(self, seconds: float | None, cancelled: threading.Event | None = None) -> dict[str, Any]:
        """The next answer; an empty one when ``cancelled`` was set before it came.

        Raises EngineError when the worker refused or died, or said nothing for so many seconds and was ended.
        """
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            # A wish to stop comes from another thread, so the wait for a slow step is cut into short ones.
            wait = left if cancelled is None else min(_LOOK_SECONDS, left if left is not None else 1.0)
            with contextlib.suppress(queue.Empty):
                return self._checked(self.answers.get(timeout=wait))
            if cancelled is not None and cancelled.is_set():
                return {}
            if end is not None and time.monotonic() >= end:
                self._connection.kill()
                raise EngineError(
                    f"the model's process said nothing for {seconds:.0f} s and was ended; it starts again when it is needed"
                )

    def _checked(self, message: dict[str, Any]) -> dict[str, Any]:
        if message["event"] in _LAST:
            self.answers.put(message)  # for whoever else waits for this answer
        if message["event"] == "dead":
            raise self._connection.error()
        if message["event"] == "failed":
            raise EngineError(str(message["why"]))
        return message
