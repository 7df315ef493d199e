"""One worker process and the talk with it: one thread sends requests, another hands each answer to whoever waits for it.

No wait here is without an end, whatever the worker does: it may die, be stopped, or hang in a read of a disk that fails.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from agent.children.launch import launch, plain_environment, stopped, tail
from agent.children.wire import Wire, frame
from agent.engine.last_words import last_words
from agent.engine.until import FOREVER, LOOK_SECONDS, Until
from agent.errors import EngineError, Unanswered

log = logging.getLogger(__name__)

_LAST = frozenset({"tokens", "end", "failed", "dead"})  # events after which nothing more comes
STALLED = 300.0  # seconds without a word from a worker that computes; the longest batch on the slowest board is far below
_LATE = 1.0  # seconds that a worker gets to say that it has stopped, once it should
_OWED = 20.0  # seconds after which one that did not say so is ended, when it is needed again
_END_SECONDS = 10.0  # that a worker gets to end: it may be writing a prefix
_KILL_SECONDS = 5.0  # that the kernel gets to end it; only a disk that does not answer makes it take longer
_ALIVE_SECONDS = 5.0  # how often the listener looks whether there still is a worker
_LOOK_AFTER = 1.0  # seconds between two looks after a worker that says nothing

R = TypeVar("R", bound="Request")


class WorkerConnection:
    """A worker, from its start to its end. Its requests may come from several threads. EngineError when none can be started."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.ended: str | None = None  # why the worker is gone, in one line
        self.child: subprocess.Popen[bytes]
        self.heard = time.monotonic()  # when it said something
        self._owed: float | None = None  # since when it owes an answer that nobody waits for any longer
        self._status: int | None = None
        self._why = ""  # it was ended from here
        self._closed = False
        self._lock = threading.Lock()  # held for no longer than a few assignments
        self._numbers = itertools.count(1)
        self._requests: WeakValueDictionary[int, Request] = WeakValueDictionary()  # one that nobody holds is not answered
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()  # a worker that does not read holds nobody up
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the child)
        self._socket, theirs = socket.socketpair()
        self._wire = Wire(self._socket.fileno())
        self._failed: OSError | None = None
        started = threading.Event()
        # The thread that starts the worker lives as long as it does: the kernel takes the one's end for the parent's.
        self._listener = threading.Thread(
            target=self._live, args=(module, arguments, theirs, started), daemon=True, name="engine"
        )
        self._listener.start()
        if not started.wait(STALLED) or self._failed is not None:
            why = "the system takes too long" if self._failed is None else self._failed.strerror or self._failed
            raise EngineError(f"the model's process cannot be started: {why}")

    def ask(self, message: Mapping[str, Any], kind: type[R]) -> R:
        """Send a request. Its answers are kept as long as somebody holds it."""
        with self._lock:
            request = kind(self, next(self._numbers))
            self._requests[request.number] = request
            dead = self.ended is not None
        if dead:
            request.take({"event": "dead"})
        self.send({**message, "id": request.number})
        return request

    def send(self, message: Mapping[str, Any]) -> None:
        """Send what has no answer. Raises EngineError when the connection is closed; of a worker that died, the requests tell."""
        if self._closed:
            raise self.error()
        self._outbox.put(frame(message))

    def error(self) -> EngineError:
        """Why there are no more answers."""
        if self._closed:
            return EngineError("the model was closed meanwhile")
        return EngineError(f"the model's process ended ({self.ended}); it starts again when it is needed")

    @property
    def died_itself(self) -> bool:
        """Whether the worker ended of its own doing: nobody killed it, neither we nor the kernel for want of memory."""
        return not self._closed and not self._why and self._status != -signal.SIGKILL

    def complaint(self) -> str:
        """What llama.cpp has last complained of, in brackets; empty where it has not, or is gone."""
        with contextlib.suppress(ValueError, OSError):  # the log of a worker that is gone is closed
            if self.ended is None and (said := tail(self._log)).strip():
                return f" ({last_words(0, said)})"
        return ""

    def look(self, since: float) -> None:
        """End a worker that has said nothing for far too long since it was asked."""
        if time.monotonic() - max(self.heard, since) > STALLED:
            self.kill(f"it said nothing for {STALLED:.0f} s and was ended")

    def owes(self, heard: float) -> None:
        """Nobody waits any longer for an answer; and it has not come, if nothing has since the worker was heard last."""
        with self._lock:
            if self._owed is None and self.heard == heard:
                self._owed = time.monotonic()

    def settle(self, until: Until, loading: bool) -> None:
        """Wait for the word that a worker owes; end one that is stopped, or does not say it. Unanswered as ``answer``."""
        over = None
        while (owed := self._owed) is not None and self.ended is None:
            if stopped(self.child.pid) or time.monotonic() - owed > (STALLED if loading else _OWED):
                self.kill("it did not answer and was ended")
            elif loading:
                return  # the wait for the load goes on
            elif reason := until.over():
                over = over or time.monotonic()
                if time.monotonic() - over > _LATE:
                    raise Unanswered(reason, "the model's process does not answer")
            time.sleep(LOOK_SECONDS)

    def kill(self, why: str) -> None:
        """End a worker that hangs; everybody who waits for it is told why."""
        with self._lock:
            self._why = self._why or why
        self.child.kill()
        self._hang_up()
        self._listener.join(2 * _KILL_SECONDS)

    def close(self) -> None:
        """Tell the worker to end, and wait for it."""
        self._closed = True
        self._hang_up()
        self._listener.join(_END_SECONDS + 2 * _KILL_SECONDS)

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _live(self, module: str, arguments: Sequence[str], theirs: socket.socket, started: threading.Event) -> None:
        """In a thread: start the worker, hand out its answers to its end, and at last say why there are no more."""
        # Threads that spin while they wait for each other starve when another program wants the cores: a prompt then takes
        # several times as long. Asleep at once, they are a quarter slower on an idle machine. So they spin for some 0.1 ms.
        # NumPy's own threads would begin before the worker confines itself, and it has nothing to compute for them.
        env = {"GOMP_SPINCOUNT": "10000", **plain_environment(), "GGML_NO_BACKTRACE": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            with theirs:
                self.child = launch(module, arguments, env, stdin=theirs.fileno(), stdout=self._log, stderr=self._log)
        except OSError as e:
            self._failed = e
            self._socket.close()
            self._log.close()
            return
        finally:
            started.set()
        log.info("worker %d started", self.child.pid)
        sender = threading.Thread(target=self._send_all, daemon=True, name="engine sender")
        sender.start()
        with contextlib.suppress(EOFError):
            # To the worker's end. A process that was forked at a bad moment may hold its end of the socket open.
            while (message := self._wire.receive_now(_ALIVE_SECONDS)) is not None or self.child.poll() is None:
                if message is not None:
                    self._hand_out(message)
                    message = None  # the tokens of a long prompt are megabytes, and the next one may take its time
        self._bury()
        self._outbox.put(None)
        self._hang_up()
        sender.join(_KILL_SECONDS)
        self._socket.close()
        self._log.close()

    def _send_all(self) -> None:
        """In a thread: send what is to be sent, until the listener says that there is nobody to send it to."""
        with contextlib.suppress(OSError):
            while (data := self._outbox.get()) is not None:
                self._wire.send(data)

    def _hand_out(self, message: dict[str, Any]) -> None:
        with self._lock:
            request = self._requests.get(message.get("id", 0))
        if request is not None:
            request.take(message)
        with self._lock:  # after that: who sees it, can have the answer
            self.heard, self._owed = time.monotonic(), None

    def _bury(self) -> None:
        """The worker has ended, or is ended now; tell all who wait."""
        end = time.monotonic() + (0.0 if self._why else _END_SECONDS)
        while self.child.poll() is None and time.monotonic() < end and not stopped(self.child.pid):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(LOOK_SECONDS)
        self.child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._status = self.child.wait(_KILL_SECONDS)
        why = self._why or last_words(self._status or 0, tail(self._log))
        log.info("worker %d ended: %s", self.child.pid, "the engine was closed" if self._closed else why)
        with self._lock:
            self.ended = why
            waiting = list(self._requests.values())
        for request in waiting:
            request.take({"event": "dead"})


class Request:
    """A request to a worker, and the answers to it that have come and are not read yet. One thread reads them.

    Attributes:
        asked: when, on the monotonic clock.
        stopped: why the worker was asked to stop; empty while it was not.
    """

    def __init__(self, connection: WorkerConnection, number: int) -> None:
        self.number = number
        self.asked = time.monotonic()
        self.stopped = ""
        self._stopped_at = 0.0
        self._connection = connection
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def take(self, message: dict[str, Any]) -> None:
        """An answer has come."""
        self._answers.put(message)

    def cancel(self) -> None:
        """Ask the worker to stop; what comes then is read as before."""
        self._connection.send({"op": "cancel", "id": self.number})

    def answer(self, until: Until = FOREVER) -> dict[str, Any]:
        """The next answer. When ``until`` is over, the worker is asked to stop, and what it says to that is the next answer.

        Raises:
            EngineError: the worker refused or died, or said nothing for so long that it was ended.
            Unanswered: it did not even say that it has stopped.
        """
        while True:
            heard = self._connection.heard
            if not self.stopped and (reason := until.over()):  # also where answers come faster than they are read
                self.stopped, self._stopped_at = reason, time.monotonic()
                self.cancel()
            with contextlib.suppress(queue.Empty):
                return self._checked(self._answers.get(timeout=until.pause(_LOOK_AFTER)))
            if self.stopped and time.monotonic() - self._stopped_at > _LATE:
                self._connection.owes(heard)
                raise Unanswered(self.stopped, "the model's process does not answer")
            self._connection.look(self.asked)

    def _checked(self, message: dict[str, Any]) -> dict[str, Any]:
        if message["event"] == "end" and message["reason"] == "cancelled" and self.stopped:
            message = {**message, "reason": self.stopped}
        if message["event"] in _LAST:
            self._answers.put(message)  # for who asks again
        if message["event"] == "dead":
            raise self._connection.error()
        if message["event"] == "failed":
            raise EngineError(str(message["why"]))
        return message
