"""One template in one long-lived child process: what is asked of it, how long it may take, and what happens when it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any

from agent.children.launch import bury, cause, launch, plain_environment, stopped, tail
from agent.children.wire import Wire, frame
from agent.errors import TemplateError
from agent.templates.limits import CPU_SECONDS, MAX_OUTPUT, MAX_TEMPLATE_BYTES, MEMORY_BYTES, SEND_LESS, WALL_SECONDS
from agent.text import one_line

_LOOK_SECONDS = 1.0  # how often a rendering that takes long is looked after
_MAX_FRAME = 8 * MAX_OUTPUT  # bytes; a character takes four at most, six as an escape


@dataclass(frozen=True, slots=True)
class RenderJob:
    """What is to be rendered.

    Attributes:
        messages: in the form that templates take, texts shadowed.
        tools: likewise; None when there are none.
        prompt: whether the generation prompt follows.
        options: further variables.
        now: what ``strftime_now`` tells.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None
    prompt: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    now: datetime = datetime(2026, 1, 1)


@dataclass(frozen=True, slots=True)
class Rendered:
    """What came of a job: a text, or why there is none, in one line."""

    text: str
    error: str | None


class TemplateProcess:
    """Renders one template in a child process, which is started at once and replaced when it dies. Safe to share by threads.

    Args:
        source, bos, eos: as for ChatTemplate.
        cpu_seconds: of processor time for compiling it, and for each ``render``.
        seconds: for each ``render``, by the clock on the wall.

    Raises:
        TemplateError: it is too large.
    """

    def __init__(
        self, source: str, bos: str = "", eos: str = "", *, cpu_seconds: int = CPU_SECONDS, seconds: float = WALL_SECONDS
    ) -> None:
        size = len(source.encode("utf-8", "surrogatepass"))
        if size > MAX_TEMPLATE_BYTES:
            raise TemplateError(f"the chat template has {size} bytes; more than {MAX_TEMPLATE_BYTES} are not accepted")
        self._first = {
            "template": source, "bos": bos, "eos": eos, "cpu_seconds": cpu_seconds, "memory_bytes": MEMORY_BYTES,
        }  # fmt: skip
        self._cpu_seconds, self._seconds = cpu_seconds, seconds
        self._lock = threading.Lock()  # held for ``seconds`` at most, and the time of a start
        self._owner = os.getpid()
        self._closed = False
        self._child: _Child | None = _Child()
        self.names: tuple[str, ...] = ()  # of the variables that the template reads; known after a first rendering

    def render(self, jobs: Sequence[RenderJob], *, cpu_seconds: int | None = None) -> list[Rendered]:
        """Render all jobs, in order; a job that the template refuses has an error.

        Raises:
            TemplateError: the template does not parse, does not end, takes too much memory, writes without end, or tries to leave
                the sandbox. The next call finds a fresh process.
        """
        cpu_seconds = cpu_seconds or self._cpu_seconds
        order = {"jobs": [_as_json(job) for job in jobs], "cpu_seconds": cpu_seconds, "max_output": MAX_OUTPUT}
        try:
            data = frame(order, "replace")
        except (TypeError, ValueError, RecursionError) as e:
            raise TemplateError(f"the chat template cannot be given what it should render: {one_line(e)}") from None
        if len(data) > _MAX_FRAME:
            raise TemplateError(
                f"the conversation has {len(data)} bytes; more than {_MAX_FRAME} cannot be rendered at once; {SEND_LESS}"
            )
        if os.getpid() != self._owner:
            raise TemplateError("the chat template belongs to the process that opened it; a forked process opens its own")
        with self._lock:
            if self._closed:
                raise TemplateError("the chat template was closed; make a new one")
            try:
                answer = self._ask(data, cpu_seconds)
            except BaseException:
                self._drop()
                raise
        self.names = tuple(str(name) for name in answer["names"])
        return [Rendered(text, None if error is None else one_line(error)) for text, error in answer["done"]]

    def _ask(self, data: bytes, cpu_seconds: int) -> dict[str, Any]:
        if self._child is not None and self._child.process.poll() is not None:
            self._drop()  # somebody killed it while it had nothing to do
        if self._child is None:
            self._child = _Child()
        child = self._child
        with child.deadline(self._seconds):
            if not child.ready:
                child.ask(frame(self._first), self._cpu_seconds)
                child.ready = True
            return child.ask(data, cpu_seconds)

    def _drop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def close(self) -> None:
        """End the process. Nothing can be rendered afterwards."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            self._closed = True
            self._drop()


def _as_json(job: RenderJob) -> dict[str, Any]:
    variables = {**job.options, "messages": job.messages, "tools": job.tools, "add_generation_prompt": job.prompt}
    return {"variables": variables, "now": job.now.replace(tzinfo=None).isoformat()}


class _Child:
    """The process itself, and its two pipes."""

    def __init__(self) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed by end)
        self.process = launch(
            "agent.templates.server", [], {**plain_environment(), "PYTHONDONTWRITEBYTECODE": "1"}, stderr=self._log
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._wire = Wire(self.process.stdout.fileno(), self.process.stdin.fileno(), most=_MAX_FRAME)
        self._late = self._stopped = False
        self.ready = False

    @contextlib.contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Meanwhile, end it when it takes longer, or is stopped."""
        done, end = threading.Event(), time.monotonic() + seconds

        def watch() -> None:
            while not done.wait(min(_LOOK_SECONDS, max(0.0, end - time.monotonic()))):
                self._stopped = stopped(self.process.pid)
                if self._stopped or time.monotonic() >= end:
                    self._late = not self._stopped
                    self.process.kill()
                    return

        threading.Thread(target=watch, daemon=True, name="template").start()
        try:
            yield
        finally:
            done.set()

    def ask(self, data: bytes, cpu_seconds: int) -> dict[str, Any]:
        """The answer to a frame. TemplateError when the process dies over it, or ends because the template must not be used."""
        try:
            self._wire.send(data)
            answer = self._wire.receive()  # what it does not give in time, ``deadline`` ends with the process
        except (OSError, EOFError):
            rest = "" if self._stopped else "; use another one"
            raise TemplateError(f"the chat template {self._cause(cpu_seconds)}{rest}") from None
        if "broken" in answer:
            raise TemplateError(f"the chat template {one_line(answer['broken'])}")
        return answer

    def _cause(self, cpu_seconds: int) -> str:
        """Why it died, in words that follow "the chat template"."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        status = self.process.returncode
        if self._stopped:
            return "had to be ended: its process was stopped"
        if self._late or status == -signal.SIGXCPU:
            return f"did not end within {cpu_seconds} s of processor time"
        if status == -signal.SIGKILL:
            return "was killed, probably for want of memory"
        last = one_line(tail(self._log).strip().rsplit("\n", 1)[-1])
        return f"broke the process that rendered it ({last or cause(status or 0) or f'status {status}'})"

    def end(self) -> None:
        self.process.kill()
        bury(self.process)
        self._log.close()
