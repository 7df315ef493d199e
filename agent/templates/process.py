"""One template in one long-lived child process: what is asked of it, how long it may take, and what happens when it dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from agent.errors import TemplateError
from agent.templates.support import MAX_OUTPUT, MEMORY_BYTES, one_line

CPU_SECONDS = 2
WALL_SECONDS = 20.0  # far above the processor time: a board under load is no hostile template
_PACKAGES = Path(__file__).resolve().parent.parent.parent
_MAX_FRAME = 8 * MAX_OUTPUT  # bytes; a character takes four at most, six as an escape
# A template has no business with anything else that stands in an environment.
_KEPT = ("PATH", "HOME", "PREFIX", "LD_LIBRARY_PATH", "LD_PRELOAD", "LANG", "LC_ALL", "TMPDIR", "TZ", "VIRTUAL_ENV", "PYTHONHOME")


@dataclass(frozen=True, slots=True)
class Rendition:
    """One rendering.

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
class Rendering:
    """What came of a job: a text, or why there is none, in one line."""

    text: str
    error: str | None


class TemplateProcess:
    """Renders one template in a child process, which is started at once and replaced when it dies. Safe to share by threads."""

    def __init__(self, source: str, bos: str = "", eos: str = "") -> None:
        self._first = {
            "template": source, "bos": bos, "eos": eos, "cpu_seconds": CPU_SECONDS, "memory_bytes": MEMORY_BYTES,
        }  # fmt: skip
        self._lock = threading.Lock()
        self._closed = False
        self._child: _Child | None = _Child()
        self.names: tuple[str, ...] = ()  # of the variables that the template reads; known after a first rendering

    def render(self, jobs: Sequence[Rendition], *, cpu_seconds: int = CPU_SECONDS) -> list[Rendering]:
        """Render all jobs, in order; a job that the template refuses has an error.

        Raises:
            TemplateError: the template does not parse, does not end, takes too much memory, writes without end, or tries to leave
                the sandbox. The next call finds a fresh process.
        """
        order = {"jobs": [_as_json(job) for job in jobs], "cpu_seconds": cpu_seconds, "max_output": MAX_OUTPUT}
        try:
            data = json.dumps(order, ensure_ascii=False).encode("utf-8", "replace")
        except (TypeError, ValueError, RecursionError) as e:
            raise TemplateError(f"the chat template cannot be given what it should render: {one_line(e)}") from None
        if len(data) > _MAX_FRAME:
            raise TemplateError(f"the conversation has {len(data)} bytes; more than {_MAX_FRAME} cannot be rendered at once")
        with self._lock:
            if self._closed:
                raise TemplateError("the chat template was closed; make a new one")
            try:
                answer = self._ask(data, cpu_seconds)
            except BaseException:
                self._drop()
                raise
        self.names = tuple(str(name) for name in answer["names"])
        return [Rendering(text, None if error is None else one_line(error)) for text, error in answer["done"]]

    def _ask(self, data: bytes, cpu_seconds: int) -> dict[str, Any]:
        if self._child is not None and self._child.dead():
            self._drop()  # somebody killed it while it had nothing to do
        if self._child is None:
            self._child = _Child()
        child = self._child
        with child.deadline(WALL_SECONDS):
            if not child.ready:
                _checked(child, child.exchange(json.dumps(self._first).encode()), CPU_SECONDS)
                child.ready = True
            return _checked(child, child.exchange(data), cpu_seconds)

    def _drop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def close(self) -> None:
        """End the process. Nothing can be rendered afterwards."""
        with self._lock:
            self._closed = True
            self._drop()


def _as_json(job: Rendition) -> dict[str, Any]:
    variables = {
        **job.options, "messages": job.messages, "tools": job.tools, "add_generation_prompt": job.prompt,
    }  # fmt: skip
    return {"variables": variables, "now": job.now.replace(tzinfo=None).isoformat()}


def _checked(child: _Child, answer: dict[str, Any] | None, cpu_seconds: int) -> dict[str, Any]:
    if answer is None:
        raise TemplateError(f"the chat template {child.cause(cpu_seconds)}; use another one")
    if "broken" in answer:
        raise TemplateError(f"the chat template {one_line(answer['broken'])}")
    return answer


class _Child:
    """The process itself, and its two pipes."""

    def __init__(self) -> None:
        path = os.pathsep.join(filter(None, [str(_PACKAGES), os.environ.get("PYTHONPATH", "")]))
        env = {name: os.environ[name] for name in _KEPT if name in os.environ}
        env |= {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed by end)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "agent.templates.server"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=env, start_new_session=True,
        )  # fmt: skip
        self._late = False
        self.ready = False

    @contextlib.contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        def kill() -> None:
            self._late = True
            self._process.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def exchange(self, data: bytes) -> dict[str, Any] | None:
        """The answer to a frame; None when the process dies over it."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(len(data).to_bytes(4, "big") + data)
            stdin.flush()
            length = int.from_bytes(stdout.read(4), "big")
            if not 0 < length <= _MAX_FRAME:
                return None
            frame = stdout.read(length)
            answer: dict[str, Any] = json.loads(frame) if len(frame) == length else {}
        except (OSError, ValueError):
            return None
        return answer if len(frame) == length else None

    def dead(self) -> bool:
        """Whether it has ended already."""
        return self._process.poll() is not None

    def cause(self, cpu_seconds: int) -> str:
        """Why it died, in words that follow "the chat template"."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        status = self._process.returncode
        if self._late or status == -signal.SIGXCPU:
            return f"did not end within {cpu_seconds} s of processor time"
        if status == -signal.SIGKILL:
            return "was killed, probably for want of memory"
        self._log.seek(0)
        last = self._log.read().decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
        return f"broke the process that rendered it ({one_line(last) or f'status {status}'})"

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(OSError):
                pipe.close() if pipe is not None else None
