"""One Textual app in a child process, spoken to through its pipes as Textual's WebDriver does.

Either side sends packets: a kind (``D`` terminal data, ``M`` JSON, ``P`` Textual's binary encoding), a length in 4 bytes,
big-endian, and a payload. textual-serve has this half too, but starts a shell and waits for ever for a child that hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence

from agent.children.orphan import end_with_parent
from agent.text import display

DATA, META, PACKED = b"D", b"M", b"P"
_ENVIRONMENT = {
    "TEXTUAL_DRIVER": "tui.serve.driver:ServedDriver", "TEXTUAL_COLOR_SYSTEM": "truecolor", "TERM_PROGRAM": "textual",
}  # fmt: skip
_READY = b"__GANGLION__\n"
_CHATTER_BYTES = 1 << 16  # what a program may print before its app starts
_PACKET_BYTES = 1 << 26
_STDERR_BYTES = 4096
_BROKEN_OFF = (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, ConnectionError, RuntimeError)
_QUIT_S, _TERM_S = 4.0, 2.0  # how long an app may take to quit when asked, and when told
_HURRIED_S = 0.3  # how long for each when the server ends; what was said is kept as it is said
_PIPE_S = 0.5  # how long its output may last when it is gone: a grandchild may hold the pipe


def _last_words(stderr: bytes) -> str:
    """The last line that says something, without the frames that are drawn around tracebacks."""
    lines = [line.strip(" │╭╮╰╯─\r\t") for line in stderr.decode("utf-8", "replace").splitlines()]
    return next((display(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in reversed(lines) if re.search(r"\w", line)), "")


class Child:
    """A running app. Made by `start`; ended by `stop`, which may be called more than once."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.pid = process.pid
        self._process = process
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._last_stderr = b""
        self._stopping: asyncio.Task[str] | None = None
        self._hurry = asyncio.Event()
        self._tasks = [asyncio.create_task(self._read_stderr()), asyncio.create_task(self._end_output())]

    @classmethod
    async def start(cls, command: Sequence[str], columns: int, rows: int) -> Child:
        """Start ``command`` (no shell sees it), which must run a Textual app.

        Raises:
            OSError: there is no such program.
        """
        # A session of its own: Ctrl-C in the terminal reaches the server alone, and the whole group can be ended.
        environment = {**os.environ, **_ENVIRONMENT, "COLUMNS": str(columns), "ROWS": str(rows)}
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment, start_new_session=True,
            preexec_fn=lambda: end_with_parent(signal.SIGTERM),
        )  # fmt: skip
        return cls(process)

    async def packets(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """Kind and payload of each packet of the app, until it ends or sends something else."""
        with contextlib.suppress(*_BROKEN_OFF):
            chatter = 0
            while (line := await self._stdout.readline()) != _READY:
                chatter += len(line)
                if not line or chatter > _CHATTER_BYTES:
                    return
            while True:
                head = await self._stdout.readexactly(5)
                kind, size = head[:1], int.from_bytes(head[1:], "big")
                if kind not in (DATA, META, PACKED) or size > _PACKET_BYTES:
                    return
                yield kind, await self._stdout.readexactly(size)

    async def send(self, kind: bytes, payload: bytes) -> None:
        """Send one packet; waits while the app does not read. An app that is gone is not told anything."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._stdin.write(kind + len(payload).to_bytes(4, "big") + payload)
            await self._stdin.drain()

    async def tell(self, message: Mapping[str, object]) -> None:
        await self.send(META, json.dumps(message).encode())

    async def stop(self, *, hurry: bool = False) -> str:
        """Make sure that the app and its group have ended: it is asked, then told, then killed; in a ``hurry``, within a second
        and a half, also when it was asked before.

        Returns:
            Why it ended, one line; empty when it ended well.
        """
        if hurry:
            self._hurry.set()
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())
        return await asyncio.shield(self._stopping)

    async def _stop(self) -> str:
        if self._process.returncode is None:
            # Not awaited without end: the pipe to an app that hangs may be full.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.tell({"type": "quit"}), 0.2 if self._hurry.is_set() else 1.0)
            drain = asyncio.create_task(self._drain())
            if not await self._ends_within(_QUIT_S):
                self._signal(signal.SIGTERM)
                await self._ends_within(_TERM_S)
            drain.cancel()
        self._signal(signal.SIGKILL)
        status = await self._process.wait()
        await asyncio.wait(self._tasks, timeout=0.1 if self._hurry.is_set() else _PIPE_S)
        for task in self._tasks:
            task.cancel()
        self._stdin.close()
        if status == 0:
            return ""
        ended = f"it ended with status {status}" if status > 0 else f"signal {-status} ended it"
        return _last_words(self._last_stderr) or ended

    async def _ends_within(self, seconds: float) -> bool:
        waits = [asyncio.create_task(work) for work in (self._process.wait(), self._hurry.wait())]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._hurry.is_set():
            await asyncio.wait(waits[:1], timeout=_HURRIED_S)
        for wait in waits:
            wait.cancel()
        return self._process.returncode is not None

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def _drain(self) -> None:
        """Read on while it quits: an app whose last frame nobody reads would wait for ever."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            while await self._stdout.read(1 << 16):
                pass

    async def _read_stderr(self) -> None:
        while data := await self._stderr.read(_STDERR_BYTES):
            self._last_stderr = (self._last_stderr + data)[-_STDERR_BYTES:]

    async def _end_output(self) -> None:
        await self._process.wait()
        await asyncio.sleep(_PIPE_S)
        self._stdout.feed_eof()
