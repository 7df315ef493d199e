"""How bytes reach an MCP server and come back: a child process or streamable HTTP, with bounds on everything that comes back.

The SDK's own stdio transport buffers a line of any length, shows the server's standard error on the terminal and hands on more
of the environment than a server needs; this one does not. Message framing:
https://modelcontextprotocol.io/specification/2025-11-25/basic/transports
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import IO, TYPE_CHECKING, Any

from agent.children.keeper import GRACE, kept
from agent.text import display
from agent.tools.mcp.bounds import MESSAGE_BYTES, TOO_LARGE, TOO_MANY, VALUES, Measure, values
from agent.tools.mcp.config import MCPError, ServerConfig
from agent.tools.mcp.schema import read_tool

if TYPE_CHECKING:
    import httpx2
    from mcp.shared.message import SessionMessage

LOG_BYTES = 64_000
_NOISE_LINES = 1_000  # lines on standard output that are no message, until the server is given up
_BURST, _PER_SECOND = 500, 100  # messages that nobody asked for; those above are dropped
_FLOOD = 5_000  # dropped ones, until the server is given up
_CLOSING = 1.0  # seconds for a server to end once its standard input is closed
PATIENCE = 0.2  # seconds until a connection that ended without a reason is not waited for to give one
_HANDED_ON = ("PATH", "HOME", "LANG", "TMPDIR")


class ConnectionWatch:
    """What is known of one connection while it lasts: the server's log, why it ended, what it may still send.

    Attributes:
        reason: why the connection is over, in words; empty while it lasts.
        over: set when it is.
        leaving: whether we are the ones who end it; then its closed pipes are no reason.
        listed: called when the server says that its tools changed.
    """

    def __init__(
        self,
        on_end: Callable[[], None],
        on_listed: Callable[[], None],
        on_warning: Callable[[str], None],
        offers: Callable[[str], bool] = lambda name: True,
    ) -> None:
        self.reason = ""
        self.leaving = False
        self.over = asyncio.Event()
        self.listed, self._on_end, self._on_warning, self._offers = on_listed, on_end, on_warning, offers
        self._asked: set[str | int] = set()  # ids of requests that have no answer yet
        self._log = b""
        self._noise = self._dropped = 0
        self._allowance, self._at = float(_BURST), time.monotonic()
        self.kill: Callable[[], None] = lambda: None

    def end(self, reason: str) -> None:
        """The connection is over; the first reason stands."""
        if not self.over.is_set() and not self.leaving:
            self.reason = reason
            self.over.set()
            self.kill()
            self._on_end()

    def note(self, data: bytes) -> None:
        """Keep the end of what the server wrote to its log."""
        self._log = (self._log + data)[-LOG_BYTES:]

    @property
    def log(self) -> str:
        return self._log.decode("utf-8", "replace")

    @property
    def last_words(self) -> str:
        """The last line of the log, ready to be shown at the end of a sentence."""
        lines = [line.strip() for line in self.log.splitlines() if line.strip()]
        return f" ({display(lines[-1][:200])})" if lines else ""

    def noise(self, line: bytes) -> None:
        """A line that is not a message: servers print to the wrong stream."""
        self.note(line[:1000] + b"\n")
        self._noise += 1
        if self._noise == 1:
            self._on_warning("it writes something else than messages to its standard output; see its log")
        if self._noise > _NOISE_LINES:
            self.end("it speaks no MCP on its standard output")

    def admit(self, item: SessionMessage | Exception) -> SessionMessage | None:
        """The message if it may pass; a list of tools loses the entries that are not tools."""
        from mcp.types import JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

        if isinstance(item, Exception):
            return None
        message = item.message
        if isinstance(message, JSONRPCNotification | JSONRPCRequest):
            if message.method == "notifications/tools/list_changed":
                self.listed()
            # Of what it tells unasked, only this is of use; the rest would cost the SDK a task each.
            wanted = isinstance(message, JSONRPCRequest) or message.method == "notifications/progress"
            return item if self.allows_one() and wanted else None
        if message.id not in self._asked:
            return item if self.allows_one() else None
        self._asked.discard(message.id)
        if isinstance(message, JSONRPCResponse) and isinstance(message.result.get("tools"), list):
            message.result["tools"] = [entry for raw in message.result["tools"] if (entry := self._entry(raw))]
        return item

    def sends(self, item: SessionMessage) -> None:
        """A message goes to the server."""
        from mcp.types import JSONRPCRequest

        if isinstance(item.message, JSONRPCRequest):
            self._asked.add(item.message.id)

    def _entry(self, raw: object) -> dict[str, Any] | None:
        """The parts of a tool's entry that are used, so that one wrong entry does not make the SDK refuse the whole list."""
        if isinstance(raw, dict) and isinstance(raw.get("name"), str) and not self._offers(raw["name"]):
            return None
        tool = read_tool(raw)
        if isinstance(tool, str):
            self._on_warning(f"{display(tool)}; it is not offered")
            return None
        entry = {"name": tool.name, "title": tool.title, "description": tool.description, "inputSchema": tool.parameters}
        entry |= {"annotations": dict(tool.annotations), "_meta": {"digest": tool.digest, "size": tool.size}}
        return entry if tool.output is None else entry | {"outputSchema": tool.output}

    def allows_one(self) -> bool:
        """Whether one more message that nobody asked for may come in now."""
        now = time.monotonic()
        self._allowance = min(_BURST, self._allowance + (now - self._at) * _PER_SECOND)
        self._at = now
        if self._allowance >= 1:
            self._allowance -= 1
            return True
        self._dropped += 1
        if self._dropped == 1:
            self._on_warning("it floods with messages that nobody asked for; some are dropped")
        if self._dropped > _FLOOD:
            self.end("it flooded with messages that nobody asked for")
        return False


class _Outgoing:
    """The stream of messages to the server, of which ``watch`` is told: what is no answer to one of them, nobody asked for."""

    def __init__(self, stream: Any, watch: ConnectionWatch) -> None:
        self._stream, self._watch = stream, watch
        self.aclose = stream.aclose

    async def send(self, item: SessionMessage) -> None:
        self._watch.sends(item)
        await self._stream.send(item)

    async def __aenter__(self) -> _Outgoing:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()


@contextlib.asynccontextmanager
async def guarded(inner: Any, watch: ConnectionWatch, *, passed: bool = False) -> AsyncIterator[tuple[Any, Any]]:
    """A transport of the SDK's kind whose messages pass ``watch`` first, or have ``passed`` it where they came in."""
    import anyio

    async with inner as (read, write):
        send, receive = anyio.create_memory_object_stream[Any](0)

        async def forward() -> None:
            try:
                async with send:
                    async for item in read:
                        admitted = item if passed else watch.admit(item)
                        if watch.over.is_set():
                            return
                        if admitted is not None:
                            await send.send(admitted)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass
            # Over HTTP the stream ends first and the error comes after it.
            await anyio.sleep(PATIENCE / 2)
            watch.end("it closed the connection")

        async with anyio.create_task_group() as group:
            group.start_soon(forward)
            try:
                yield receive, _Outgoing(write, watch)
            finally:
                watch.leaving = True
                group.cancel_scope.cancel()
                receive.close()


@contextlib.asynccontextmanager
async def stdio(config: ServerConfig, watch: ConnectionWatch) -> AsyncIterator[tuple[Any, Any]]:
    """Run the server's command under a keeper (agent.children.keeper) and speak with it, a message a line."""
    import anyio

    process, lifeline = await _start(config)
    watch.kill = lifeline.close
    inbox, read = anyio.create_memory_object_stream[Any](0)
    write, outbox = anyio.create_memory_object_stream[Any](0)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_read_lines, process, inbox, watch)
            group.start_soon(_read_log, process, watch)
            group.start_soon(_write_lines, process, outbox, watch)
            try:
                yield read, write
            finally:
                with anyio.CancelScope(shield=True):
                    await _stop(process, lifeline)
                group.cancel_scope.cancel()
                for stream in (inbox, read, write, outbox):
                    stream.close()
    finally:
        lifeline.close()


async def _start(config: ServerConfig) -> tuple[asyncio.subprocess.Process, IO[bytes]]:
    """The keeper, whose standard streams are the server's, and what ends both when it is closed."""
    assert config.command is not None
    # All that it gets to see of this process's environment, and what was set for it.
    environment = {name: os.environ[name] for name in _HANDED_ON if name in os.environ} | dict(config.env)
    theirs, ours = os.pipe()
    lifeline = os.fdopen(ours, "wb", buffering=0)
    try:
        return await asyncio.create_subprocess_exec(
            *kept(config.command, theirs, environment, config.cwd),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=environment, cwd=config.cwd, start_new_session=True, pass_fds=[theirs], limit=1 << 16,
        ), lifeline  # fmt: skip
    except (OSError, ValueError) as e:
        lifeline.close()
        what = display(str(getattr(e, "filename", None) or config.command[0]))
        raise MCPError(f"{what} cannot be started: {getattr(e, 'strerror', None) or e}") from None
    finally:
        os.close(theirs)


async def _read_lines(process: asyncio.subprocess.Process, inbox: Any, watch: ConnectionWatch) -> None:
    import anyio

    assert process.stdout is not None
    parts: list[bytes] = []
    size = 0
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async with inbox:
            while chunk := await process.stdout.read(1 << 16):
                await asyncio.sleep(0)  # a server that writes without end must leave time for everything else
                *lines, rest = chunk.split(b"\n")
                for line in lines:
                    whole = b"".join([*parts, line])
                    parts, size = [], 0  # before it is read: a large one is not held twice
                    await _deliver(whole, inbox, watch)
                    if watch.over.is_set():
                        return
                parts.append(rest)
                size += len(rest)
                if size > MESSAGE_BYTES:
                    watch.end(f"it sent a message {TOO_LARGE}")
                    return
            if process.returncode is None and not watch.over.is_set():
                # The pipe is closed a moment before the exit status is known.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), 1.0)
            await asyncio.sleep(0)  # its last words may still be in the other pipe
            status = "" if process.returncode is None else f", exit status {process.returncode}"
            watch.end(f"it ended{status}{watch.last_words}")


async def _deliver(line: bytes, inbox: Any, watch: ConnectionWatch) -> None:
    from mcp.shared.message import SessionMessage
    from mcp.types import jsonrpc_message_adapter

    if not line.strip():
        return
    if not line.lstrip().startswith(b"{"):
        watch.noise(line)
        return
    # Without an id it is a notification: a flood of them must cost no more than this look.
    if b'"id"' not in line and not watch.allows_one():
        if b"tools/list_changed" in line:
            watch.listed()
        return
    if values(line) > VALUES:
        watch.end(f"it sent a message {TOO_MANY}")
        return
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        watch.noise(line)
        return
    admitted = watch.admit(SessionMessage(message))
    if admitted is not None:
        await inbox.send(admitted)


async def _read_log(process: asyncio.subprocess.Process, watch: ConnectionWatch) -> None:
    assert process.stderr is not None
    while chunk := await process.stderr.read(1 << 14):
        watch.note(chunk)


async def _write_lines(process: asyncio.subprocess.Process, outbox: Any, watch: ConnectionWatch) -> None:
    assert process.stdin is not None
    try:
        async for item in outbox:
            text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
            process.stdin.write(text.encode("utf-8", "replace") + b"\n")
            await process.stdin.drain()
    except OSError:
        await asyncio.sleep(0.2)  # if it died, the reader knows a better reason
        watch.end("it closed its standard input")


async def _stop(process: asyncio.subprocess.Process, lifeline: IO[bytes]) -> None:
    """The order of the specification: close its input, wait, SIGTERM, wait, SIGKILL; the last three are the keeper's."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    if not lifeline.closed:
        await _ended(process, _CLOSING)
    lifeline.close()
    if not await _ended(process, 2 * GRACE):
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()  # a process that could not be ended may hold the pipes open


async def _ended(process: asyncio.subprocess.Process, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while process.returncode is None and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    return process.returncode is not None


@contextlib.asynccontextmanager
async def http(config: ServerConfig, watch: ConnectionWatch) -> AsyncIterator[tuple[Any, Any]]:
    """Speak streamable HTTP. The SDK follows no redirect to another origin, so headers never reach another host."""
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    assert config.url is not None
    times = httpx2.Timeout(config.connect_timeout, read=max(config.timeout, config.connect_timeout) + 30)
    headers = {"accept-encoding": "identity", **config.headers}

    async def bounded(response: httpx2.Response) -> None:
        if response.status_code >= 400:
            watch.note(f"HTTP {response.status_code} {response.reason_phrase}\n".encode())
        _bound(response, watch)

    hooks = {"response": [bounded]}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=times, follow_redirects=False, event_hooks=hooks) as client,
        streamable_http_client(config.url, http_client=client, max_sse_event_size=MESSAGE_BYTES) as streams,
    ):
        yield streams


def _bound(response: httpx2.Response, watch: ConnectionWatch) -> None:
    """Let a body end in an error once a message in it is too large."""
    import httpx2

    # Nothing compressed was asked for, and a few bytes of it can mean gigabytes.
    response.headers.pop("content-encoding", None)
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    whole: httpx2.AsyncByteStream = response.stream
    measure = Measure(events=response.headers.get("content-type", "").lower().startswith("text/event-stream"))

    def check(wrong: str) -> None:
        if wrong:
            watch.end(f"it sent a message {wrong}")
            raise httpx2.ReadError(watch.reason)

    class Bounded(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in whole:
                check(measure.feed(chunk))
                yield chunk
            check(measure.end())

        async def aclose(self) -> None:
            await whole.aclose()

    response.stream = Bounded()
