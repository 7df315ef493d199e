"""The handle of one loaded model. llama.cpp runs in a child process (agent.engine.worker): it may die there."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from agent.children.child import Ended
from agent.children.wire import Wire
from agent.device.machine import available_memory, cores
from agent.engine.sampling import Sampling
from agent.engine.steps import EndStep, PrefillStep, Step, TextStep, step_of
from agent.engine.trial import why_it_ended
from agent.errors import SprigError
from agent.home import home
from agent.messages import Segment
from agent.models.file import ModelFile, read_model
from agent.models.memory import BATCH, CACHE, CONVERSATIONS, Need, choose_context, flash_attention
from agent.models.store import find_model

log = logging.getLogger(__name__)

_PACKAGES = Path(__file__).resolve().parents[2]
_LOG_BYTES = 1 << 16
_STALLED = 300.0  # seconds without a word from a worker that computes; the longest batch on the slowest board is far below


__all__ = ["EndStep", "Engine", "EngineError", "Loaded", "PrefillStep", "Step", "TextStep"]


class EngineError(SprigError):
    """The model could not be loaded, or its process died. The engine starts it again when it is next needed."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model as it is in memory.

    Attributes:
        context: tokens of all conversations together.
        partial_rollback: whether a conversation can be taken back to any token for nothing.
        seconds: how long llama.cpp took.
        resident: bytes that its process held then.
    """

    context: int
    partial_rollback: bool
    seconds: float
    resident: int


class Engine:
    """One model, loaded once, for any number of conversations.

    Args:
        model: a GGUF, or the name of one in the store.
        context: tokens that all conversations may hold together; by default what is usual, as far as it fits.
        cache: type of K and V, "f16" or "q8_0" (half the memory, slower on some CPUs).
        threads: of the computation; by default the cores that this process may use.
        conversations: how many can lie in the cache at once; the one used longest ago makes room for another.
        batch: tokens computed at once at most.
        repack: hold the weights in the order that this CPU computes fastest, as a copy; by default where there is memory for it.
        keep_prefix: keep the state of fixed prefixes on disk for the next start.
        memory: bytes that may be used; by default what the machine has free.
        nice: how far the computation stands back behind other programs, from 0 to 19 (nice(2)), where the system allows it.

    Raises:
        SprigError: there is no such model, llama.cpp would abort over it, or it does not fit the memory.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        context: int | None = None,
        cache: str = CACHE,
        threads: int | None = None,
        conversations: int = CONVERSATIONS,
        batch: int = BATCH,
        repack: bool | None = None,
        keep_prefix: bool = True,
        memory: int | None = None,
        nice: int = 0,
    ) -> None:
        if cache not in ("f16", "q8_0"):
            raise SprigError(f"the cache can be f16 or q8_0, not {cache!r}")
        for name, value, least, most in (
            ("context", context, 1, 1 << 30), ("threads", threads, 1, 1024), ("conversations", conversations, 1, 64),
            ("batch", batch, 8, 4096), ("nice", nice, 0, 19),
        ):  # fmt: skip
            if value is not None and not least <= value <= most:
                raise SprigError(f"{name} is {value} and must be from {least} to {most}")
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._owners = itertools.count(1)
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._child: subprocess.Popen[bytes] | None = None
        self._wire: Wire | None = None
        self._log: Any = None
        self._loaded: Loaded | None = None
        self._loading: int = 0
        self._ended: str | None = None
        self._refused: str | None = None
        self._closed = False
        self._nice = nice
        self.restarts = -1
        path = find_model(model)
        log.info("model %s is %s", model, path)
        self._start()  # Python starts there while the file is looked at here
        try:
            self.file: ModelFile = read_model(path)
            if not self.file.causal:
                raise SprigError(f"{self.file.name} is an embedding model and writes no text; take a chat model")
            free = memory if memory is not None else available_memory()
            size, self.need = choose_context(
                self.file, context, free, sequences=conversations, batch=batch, cache=cache
            )  # fmt: skip
            if repack is None:
                repack = self.need.total + self.file.repacked < 0.6 * free
            self._settings: dict[str, Any] = {
                "op": "load", "path": str(path), "repack": repack,
                "context": {
                    "n_ctx": size, "n_seq": conversations, "n_batch": min(batch, size), "threads": threads or cores(),
                    "cache": cache, "flash": flash_attention(cache),
                },
                "prefix_folder": str(home() / "cache" / "prefix") if keep_prefix else None,
                "identity": f"{self.file.identity} {cache} {_library()}",
            }  # fmt: skip
            self._send_load()
        except BaseException:
            self.close()
            raise

    need: Need

    @property
    def context(self) -> int:
        """Tokens that all conversations may hold together."""
        return int(self._settings["context"]["n_ctx"])

    def conversation(self) -> str:
        """A new name under which tokens are kept in the cache."""
        return f"c{next(self._owners)}"

    def wait(self, timeout: float | None = None) -> Loaded:
        """Wait until the model is loaded. EngineError when it cannot be, or not in time."""
        for _ in self.loading(timeout):
            pass
        assert self._loaded is not None
        return self._loaded

    def loading(self, timeout: float | None = None) -> Iterator[float]:
        """How far the load is, from 0 to 1, until it is done. EngineError as ``wait``."""
        self._alive()
        if self._refused is not None:
            raise EngineError(self._refused)
        if self._loaded is not None:
            return
        answers = self._answers[self._loading]
        end = None if timeout is None else time.monotonic() + timeout
        while self._loaded is None:
            try:
                message = self._next(answers, None if end is None else max(0.0, end - time.monotonic()))
            except EngineError as e:
                self._refused = f"{self.file.path} was not loaded: {e}{self._said()}"
                raise EngineError(self._refused) from None
            if message["event"] == "progress":
                yield float(message["part"])
            else:
                self._loaded = Loaded(
                    message["n_ctx"], message["partial_rollback"], message["seconds"], message["resident"]
                )  # fmt: skip
                name, memory = self.file.name, self._loaded.resident / 1e6
                log.info("%s loaded in %.1f s: %.0f MB of memory, context %d", name, self._loaded.seconds, memory, self.context)
        with self._lock:
            self._answers.pop(self._loading, None)

    def tokenize(self, segments: Sequence[Segment], *, after: int | None = None) -> list[list[int]]:
        """Token ids of each segment. What is not trusted never yields a control token or a mark of the chat format.

        Args:
            segments: of a prompt.
            after: the token in front of them; None at the start of a conversation, where BOS is put if the model wants it and
                the text does not begin with it.
        """
        self.wait()
        with self._request({"op": "tokenize", "segments": [[s.text, s.trusted] for s in segments], "after": after}) as (
            _,
            answers,
        ):
            message = self._next(answers, _STALLED)
        if message["event"] != "tokens":
            raise EngineError(message.get("why", "the text could not be tokenized"))
        return [list(ids) for ids in message["ids"]]

    def generate(
        self,
        conversation: str,
        tokens: Sequence[int],
        *,
        sampling: Sampling,
        max_tokens: int,
        constraint: Mapping[str, Any] | None = None,
        prefix: int = 0,
        seconds: float | None = None,
        max_thinking: int | None = None,
        force: bool = True,
        cancelled: threading.Event | None = None,
    ) -> Iterator[Step]:
        """Compute what is new of a transcript and let the model go on.

        Args:
            conversation: of whom the tokens are; what of them is in the cache already is not computed again.
            tokens: the whole transcript.
            sampling: how tokens are drawn.
            max_tokens: of the answer.
            constraint: see agent.grammar.constrain.Constraint.from_spec.
            prefix: how many tokens at the start are the same at every start, so that their state is worth keeping on disk.
            seconds: limit on all of it.
            max_thinking: tokens after which a thought is ended.
            force: feed in what the constraint leaves no choice about, instead of drawing it.
            cancelled: set from any thread, it ends the answer within one step.

        Raises:
            EngineError: the worker died or refused.
        """
        self.wait()
        job: dict[str, Any] = {
            "op": "generate", "owner": conversation, "tokens": list(tokens), "sampling": sampling.to_dict(), "force": force,
            "max_tokens": max_tokens, "constraint": constraint, "prefix": prefix, "seconds": seconds,
            "max_thinking": max_thinking,
        }  # fmt: skip
        with self._request(job) as (number, answers):
            ended = asked = False
            try:
                while not ended:
                    if cancelled is not None and cancelled.is_set() and not asked:
                        asked = True
                        self._send({"op": "cancel", "id": number})
                    message = self._next(answers, _STALLED, None if asked else cancelled)
                    if message is _LOOK:
                        continue
                    step = step_of(message)
                    ended = isinstance(step, EndStep)
                    yield step
            finally:
                if not ended and not asked:  # the reader went away, or an error did
                    with contextlib.suppress(EngineError):
                        self._send({"op": "cancel", "id": number})

    def forget(self, conversation: str) -> None:
        """A conversation is over; its place in the cache is free."""
        if self._loaded is not None and self._ended is None:
            with contextlib.suppress(EngineError):
                self._send({"op": "drop", "id": 0, "owner": conversation})

    def close(self) -> None:
        """End the worker. A closed engine cannot be used again."""
        self._closed = True
        child = self._child
        if self._wire is not None:
            with contextlib.suppress(OSError):
                self._wire.sock.shutdown(socket.SHUT_RDWR)
        if child is not None:
            try:
                child.wait(12)  # it may be writing a prefix
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if self._log is not None:
            self._log.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        child = getattr(self, "_child", None)
        if child is not None and child.poll() is None and not self._closed:
            child.kill()
            child.wait()

    # The child and the talk with it.

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        path = os.pathsep.join(filter(None, [str(_PACKAGES), os.environ.get("PYTHONPATH", "")]))
        # Threads that spin while they wait for each other starve when another program wants the cores: a prompt then takes
        # several times as long. Asleep at once, they are a quarter slower on an idle machine. So they spin for some 0.1 ms.
        env = {"GOMP_SPINCOUNT": "10000", **os.environ, "PYTHONPATH": path, "GGML_NO_BACKTRACE": "1"}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the child)
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "agent.engine.worker", str(theirs.fileno()), str(self._nice)],
                stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=env, pass_fds=[theirs.fileno()],
                start_new_session=True,
            )  # fmt: skip
        self._wire = Wire(ours)
        self._loaded, self._ended = None, None
        self.restarts += 1
        log.info("worker %d started, restart %d", self._child.pid, self.restarts)
        listen = (self._wire, self._child, self._log)
        self._listener = threading.Thread(target=self._listen, args=listen, daemon=True, name="engine")
        self._listener.start()

    def _send_load(self) -> None:
        number, _ = self._open()
        self._loading = number
        self._send({**self._settings, "id": number})

    def _alive(self) -> None:
        """Start the worker again if it died since."""
        if self._closed:
            raise EngineError("this engine is closed")
        if self._ended is None:
            return
        with self._lock:
            if self._ended is None:
                return
            if self._wire is not None:
                self._wire.close()
            if self._log is not None:
                self._log.close()
            self._start()
        self._send_load()

    def _listen(self, wire: Wire, child: subprocess.Popen[bytes], output: Any) -> None:
        """In a thread: hand every message to the one who waits for it, and tell all of them when the child is gone."""
        with contextlib.suppress(EOFError):
            while True:
                message = wire.receive()
                with self._lock:
                    answers = self._answers.get(message.get("id", 0))
                if answers is not None:
                    answers.put(message)
        try:
            status = child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            status = child.wait()
        why = "it was closed"
        with contextlib.suppress(ValueError, OSError):  # the log of a closed engine is closed
            size = output.seek(0, os.SEEK_END)
            output.seek(max(0, size - _LOG_BYTES))
            why = why_it_ended(Ended(status, b"", output.read().decode("utf-8", "replace"), False), None)
        log.info("worker %d ended: %s", child.pid, "the engine was closed" if self._closed else why)
        with self._lock:
            if wire is self._wire:
                self._ended = why
            waiting = list(self._answers.values())
        for answers in waiting:
            answers.put({"event": "dead", "why": why})

    def _said(self) -> str:
        """What llama.cpp has last complained of, where it has and is still there."""
        if self._ended is not None or self._log is None:
            return ""
        with contextlib.suppress(ValueError, OSError):
            raw = os.pread(self._log.fileno(), _LOG_BYTES, 0)
            return f" ({why_it_ended(Ended(0, b'', raw.decode('utf-8', 'replace'), False), None)})" if raw.strip() else ""
        return ""

    def _open(self) -> tuple[int, queue.SimpleQueue[dict[str, Any]]]:
        number = next(self._numbers)
        answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        with self._lock:
            self._answers[number] = answers
        return number, answers

    @contextlib.contextmanager
    def _request(self, message: dict[str, Any]) -> Iterator[tuple[int, queue.SimpleQueue[dict[str, Any]]]]:
        number, answers = self._open()
        try:
            self._send({**message, "id": number})
            yield number, answers
        finally:
            with self._lock:
                self._answers.pop(number, None)

    def _send(self, message: dict[str, Any]) -> None:
        assert self._wire is not None
        try:
            with self._send_lock:
                self._wire.send(message)
        except OSError:
            if self._closed:
                raise EngineError("this engine is closed") from None
            if self._child is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._child.wait(10)
            # The listening thread finds out why, and tells whoever waits for an answer.

    def _next(
        self, answers: queue.SimpleQueue[dict[str, Any]], timeout: float | None, cancelled: threading.Event | None = None
    ) -> dict[str, Any]:
        """The next message. EngineError when the worker died or says nothing for too long."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else end - time.monotonic()
            try:
                # A wish to stop comes from another thread, so the wait for a slow step is cut into short ones.
                message = answers.get(timeout=left if cancelled is None else min(0.02, left if left is not None else 1.0))
                break
            except (queue.Empty, ValueError):
                if cancelled is not None and cancelled.is_set():
                    return _LOOK
                if end is not None and time.monotonic() >= end:
                    self._kill()
                    raise EngineError(
                        f"the model's process said nothing for {timeout:.0f} s and was ended; it starts again when it is needed"
                    ) from None
        if message["event"] == "dead":
            if self._closed:
                raise EngineError("this engine is closed")
            raise EngineError(f"the model's process ended ({message['why']}); it starts again when it is needed")
        if message["event"] == "failed":
            raise EngineError(str(message["why"]))
        return message

    def _kill(self) -> None:
        """End a child that hangs; afterwards it is known to be gone."""
        if self._child is not None:
            self._child.kill()
            self._listener.join(10)


_LOOK: dict[str, Any] = {"event": "look"}


def _library() -> str:
    """Changes with the llama.cpp library: a saved state is for the one that wrote it."""
    spec = find_spec("llama_cpp")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for name in ("libllama.so", "libllama.dylib"):
            with contextlib.suppress(OSError):
                status = (Path(folder) / "lib" / name).stat()
                return f"{status.st_size} {status.st_mtime_ns}"
    return "unknown"
