"""The one place at the served app: one app runs, and at most one page watches it.

Each app holds a copy of the model, so there is only one. A page that comes later takes the place over, and the one before
it is told; that way a reload, or a second device, never waits. An app outlives its page for a while, so that a reload, a
locked phone or a lost Wi-Fi costs nothing: the next page finds it as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from agent.text import display
from tui.serve.child import DATA, META, Child

if TYPE_CHECKING:
    from aiohttp.web import WebSocketResponse

CLOSED_S, LOST_S = 3.0, 120.0  # how long an app waits for a page: after one was closed or reloaded, after one was lost
_CHUNK_BYTES, _CHUNK_S = 1 << 16, 15.0
_DOWNLOADS = 16
_LINK = re.compile(r"(https?://|mailto:)\S+", re.IGNORECASE)


class Close(IntEnum):
    """Why a page is sent away: WebSocket close codes, known to page.js."""

    ENDED = 4000
    TAKEN_OVER = 4001
    FAILED = 4002
    STOPPED = 4003


@dataclass(frozen=True, slots=True, eq=False)
class Viewer:
    """A page: its socket, and how to cut its connection when it does not answer any more."""

    socket: WebSocketResponse
    cut: Callable[[], None]

    async def send_away(self, why: Close, reason: str = "", patience: float = 2.0) -> None:
        short = reason.encode()[:120].decode("utf-8", "ignore")  # a close frame holds 123 bytes
        with contextlib.suppress(TimeoutError, ConnectionError, RuntimeError):
            await asyncio.wait_for(self.socket.close(code=why, message=short.encode()), patience)
        self.cut()


@dataclass(frozen=True, slots=True)
class Download:
    """A file that the app hands out, once."""

    key: str
    file_name: str
    mime_type: str
    encoding: str
    name: str | None
    chunks: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)


class Place:
    """Runs ``command`` for the page that is here.

    Args:
        command: the program and its arguments; it must run a Textual app.
        say: takes one line for the person who started the server.
        closed_s, lost_s: seconds that the app waits for a page, after one was closed and after one was lost.
    """

    def __init__(
        self, command: Sequence[str], say: Callable[[str], None], *, closed_s: float = CLOSED_S, lost_s: float = LOST_S
    ) -> None:
        self._command, self._say = tuple(command), say
        self._waits = {True: closed_s, False: lost_s}
        self._child: Child | None = None
        self._viewer: Viewer | None = None
        self._pump: asyncio.Task[None] | None = None
        self._leave: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()
        self._downloads: dict[str, Download] = {}
        self._reading: dict[str, Download] = {}
        self._closed = False

    async def attach(self, viewer: Viewer, columns: int, rows: int) -> None:
        """Give the place to ``viewer``, whose terminal has this size in cells."""
        async with self._lock:
            self._stay()
            previous, self._viewer = self._viewer, None
            if previous is not None:
                self._spawn(previous.send_away(Close.TAKEN_OVER))
            if self._closed:
                await viewer.send_away(Close.STOPPED)
            elif self._child is not None:
                self._viewer = viewer
                await self._child.tell({"type": "resize", "width": columns, "height": rows})
                await self._child.tell({"type": "redraw"})
            else:
                await self._start(viewer, columns, rows)

    def detach(self, viewer: Viewer, *, closed: bool) -> None:
        """``viewer`` is gone: ``closed`` by a person (or reloaded), or lost."""
        if viewer is self._viewer:
            self._viewer = None
            self._stay()
            self._leave = asyncio.create_task(self._end_after(self._waits[closed]))

    async def receive(self, viewer: Viewer, text: str) -> None:
        """Obey one message of a page: JSON, ``[kind, value]``. Anything else, and all that a page says that was sent away, is
        dropped."""
        child = self._child
        if child is None or viewer is not self._viewer:
            return
        with contextlib.suppress(ValueError, RecursionError):
            match json.loads(text):
                case ["stdin", str(keys)]:
                    await child.send(DATA, keys.encode("utf-8", "replace"))
                case ["resize", {"width": int(columns), "height": int(rows)}]:
                    await child.tell({"type": "resize", "width": cells(columns), "height": cells(rows)})
                case ["focus" | "blur" as change, *_]:
                    await child.tell({"type": change})
                case ["ping", str(sent)]:
                    await self._send_text("pong", sent[:40])

    def take_download(self, key: str) -> Download | None:
        """The file of this key; a second time there is none."""
        return self._downloads.pop(key, None)

    async def read(self, download: Download) -> AsyncIterator[bytes]:
        """What is in the file, chunk by chunk.

        Raises:
            TimeoutError: the app does not deliver it any more.
        """
        self._reading[download.key] = download
        try:
            while True:
                child = self._child
                if child is None:
                    raise TimeoutError
                request = {"key": download.key, "size": _CHUNK_BYTES, "name": download.name}
                await child.tell({"type": "deliver_chunk_request", **request})
                chunk = await asyncio.wait_for(download.chunks.get(), _CHUNK_S)
                if not chunk:
                    return
                yield chunk
        finally:
            self._reading.pop(download.key, None)

    async def close(self) -> None:
        """Send the page away and end the app; afterwards none of its processes runs."""
        self._closed = True
        viewer, self._viewer = self._viewer, None
        if viewer is not None:
            self._spawn(viewer.send_away(Close.STOPPED, patience=1.0))
        if self._child is not None:
            await self._child.stop(hurry=True)  # not behind the lock: whoever has it may wait for the app
        async with self._lock:
            self._stay()
            await self._end()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=0.3)

    async def _start(self, viewer: Viewer, columns: int, rows: int) -> None:
        try:
            self._child = await Child.start(self._command, columns, rows)
        except OSError as error:
            why = f"{display(PurePath(self._command[0]).name)} could not be started: {error.strerror}"
            self._say(why)
            await viewer.send_away(Close.FAILED, why)
            return
        self._viewer = viewer
        self._pump = asyncio.create_task(self._run(self._child))

    async def _run(self, child: Child) -> None:
        async for kind, payload in child.packets():
            if kind == DATA:
                await self._show(payload)
            elif kind == META:
                if await self._obey(payload):
                    break
            else:
                await self._deliver(payload)
        reason = await child.stop()
        if reason and not self._closed:
            self._say(f"the app ended: {reason}")
        self._child, self._pump = None, None
        self._downloads.clear()
        viewer, self._viewer = self._viewer, None
        if viewer is not None:
            self._spawn(viewer.send_away(Close.FAILED if reason else Close.ENDED, reason))

    async def _show(self, payload: bytes) -> None:
        if self._viewer is not None:
            with contextlib.suppress(ConnectionError):
                await self._viewer.socket.send_bytes(payload)

    async def _obey(self, payload: bytes) -> bool:
        """One message of the app; True when it was the last."""
        with contextlib.suppress(ValueError, RecursionError):
            match json.loads(payload):
                case {"type": "exit"}:
                    return True
                # The page asks before it opens a link. Anything else is dropped here.
                case {"type": "open_url", "url": str(url)} if _LINK.fullmatch(url):
                    await self._send_text("open_url", display(url))
                case {"type": "deliver_file_start", "key": str(key)} as meta:
                    self._offer(key, meta)
                    await self._send_text("deliver_file_start", key)
        return False

    def _offer(self, key: str, meta: dict[str, Any]) -> None:
        while len(self._downloads) >= _DOWNLOADS:
            self._downloads.pop(next(iter(self._downloads)))
        name = meta.get("name")
        self._downloads[key] = Download(
            key,
            display(PurePath(str(meta.get("path", ""))).name),
            str(meta.get("mime_type", "")),
            str(meta.get("encoding") or "utf-8"),
            name if isinstance(name, str) else None,
        )

    async def _deliver(self, payload: bytes) -> None:
        from textual_serve._binary_encode import load

        with contextlib.suppress(Exception):  # the decoder checks little: what it cannot read is dropped
            match load(payload):
                case ("deliver_chunk", str(key), (bytes() | str()) as chunk) if download := self._reading.get(key):
                    await download.chunks.put(chunk if isinstance(chunk, bytes) else chunk.encode(download.encoding, "replace"))

    async def _send_text(self, kind: str, value: str) -> None:
        if self._viewer is not None:
            with contextlib.suppress(ConnectionError):
                await self._viewer.socket.send_str(json.dumps([kind, value]))

    async def _end_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        async with self._lock:
            self._leave = None
            if self._viewer is None:
                await self._end()

    async def _end(self) -> None:
        if self._child is not None:
            await self._child.stop()
        if self._pump is not None:
            await self._pump

    def _stay(self) -> None:
        if self._leave is not None:
            self._leave.cancel()
            self._leave = None

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def cells(value: int) -> int:
    """A terminal's width or height, made sensible."""
    return min(max(value, 2), 1000)
