"""One MCP server while it is in use: connect, list, call, and connect again when it died. Runs on MCPServers' event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from agent.text import display, one_line
from agent.text.secrets import keep_secret
from agent.tools.mcp.config import MCPError, ServerConfig
from agent.tools.mcp.schema import Offered
from agent.tools.mcp.transport import PATIENCE, ConnectionWatch, guarded, http, stdio

if TYPE_CHECKING:
    from mcp import Client

T = TypeVar("T")
Notify = Callable[[str, str], None]
_PAGES = 50
TOOLS = 1_000
_TOOLS_BYTES = 4_000_000  # of all their schemas together
_WARNINGS = 20
_LIVED = 5.0  # seconds after which a server that died is started again at once
_WAIT_FIRST, _WAIT_MOST = 0.5, 60.0  # seconds between two attempts
_CLOSE_SECONDS = 6.0
_GRACE = 1.0  # seconds after the SDK's own deadline until it is not believed any more


class ServerConnection:
    """A server and what stands between us. Only the loop's own thread may use it.

    Attributes:
        config: of the server.
        listed: counts up whenever the server says that its tools changed, or was started again.
    """

    def __init__(self, config: ServerConfig, notify: Notify) -> None:
        self.config = config
        keep_secret(*config.env.values(), *config.headers.values())
        self.listed = 0
        self._known: dict[str, str] = {}  # tool -> digest, when ``listed`` was ``_known_at``
        self._known_at = -1
        self._said_listed = False  # and nobody has asked for the list since
        self._warned = 0
        self._notify = notify
        self._client: Client | None = None
        self._task: asyncio.Task[None] | None = None
        self._watch = self._new_watch()
        self._lock = asyncio.Lock()
        self._closing = False
        self._failures = 0
        self._next_try = 0.0
        self._began = 0.0
        self._revival: asyncio.Task[None] | None = None

    @property
    def log(self) -> str:
        """The end of what the server wrote to its standard error."""
        return self._watch.log

    async def connect(self) -> Client:
        """The live connection, or a new one. MCPError says why none can be made."""
        async with self._lock:
            if self._client is not None and not self._watch.over.is_set():
                return self._client
            if self._closing:
                raise self._error("it was closed")
            await self._end_task()
            wait = self._next_try - time.monotonic()
            if wait > 0:
                raise self._error(f"{self._watch.reason or 'it did not start'}; the next try is in {wait:.0f} s")
            return await self._connect()

    async def _connect(self) -> Client:
        """Two ways to begin: the handshake that every server knows, then the one without, for those that know no other."""
        self._next_try = time.monotonic() + min(_WAIT_MOST, _WAIT_FIRST * 2.0**self._failures)
        self._failures += 1
        deadline = time.monotonic() + self.config.connect_timeout
        for mode in ("legacy", "auto"):
            self._watch = self._new_watch()
            ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._hold(mode, ready))
            done, _ = await asyncio.wait([ready], timeout=max(0.1, deadline - time.monotonic()))
            if not done:
                self._watch.end(f"it did not introduce itself within {self.config.connect_timeout:g} s")
                await self._end_task()
                raise self._error(self._watch.reason)
            failed = ready.exception()
            if failed is None:
                self._client = ready.result()
                if self._began:
                    self.listed += 1  # it may be another program by now
                self._began = time.monotonic()
                self._notify("connected", "")
                return self._client
            await self._end_task()
            if not _refuses_handshake(failed):
                break
        raise self._error(self._watch.reason)

    async def _hold(self, mode: str, ready: asyncio.Future[Client]) -> None:
        """The task in which a connection is opened and closed; the SDK wants both in the same."""
        from mcp import Client
        from mcp.types import Implementation

        watch = self._watch
        own = self.config.command is not None
        transport = guarded((stdio if own else http)(self.config, watch), watch, passed=own)
        client = Client(
            transport, mode=mode, cache=None, read_timeout_seconds=self.config.connect_timeout,
            client_info=Implementation(name="sprig", version="1"),
        )  # fmt: skip
        try:
            async with client:
                if not ready.done():
                    ready.set_result(client)
                    await watch.over.wait()
        except BaseException as e:
            watch.leaving = False
            watch.end(_words(e))
            if not ready.done():
                # The reason that the transport saw is nearer to the truth than that of the layers above it.
                ready.set_exception(_innermost(e) if isinstance(e, Exception) else MCPError(watch.reason))
                ready.exception()
            if not isinstance(e, Exception):
                raise
        finally:
            if self._watch is watch:
                self._client = None

    def _new_watch(self) -> ConnectionWatch:
        return ConnectionWatch(self._on_end, self._on_listed, self._warn, self.config.offers)

    def _on_listed(self) -> None:
        self.listed += 1
        if not self._said_listed:
            self._said_listed = True
            self._notify("tools", "its tools changed")

    def _warn(self, text: str) -> None:
        """A server can be wrong in thousands of ways at once."""
        self._warned += 1
        if self._warned <= _WARNINGS:
            self._notify("warning", text if self._warned < _WARNINGS else f"{text}; and more, which is not told")

    def _on_end(self) -> None:
        if self._client is None or self._closing:
            return
        self._notify("ended", self._watch.reason)
        if time.monotonic() - self._began > _LIVED:
            self._failures, self._next_try = 0, 0.0
            self._revival = asyncio.create_task(self._revive())

    async def _revive(self) -> None:
        """Once, and not at once; after that the next call tries."""
        await asyncio.sleep(_WAIT_FIRST)
        with contextlib.suppress(MCPError):
            await self.connect()

    async def list_tools(self) -> list[Offered]:
        """What the server offers now, without what the configuration leaves out. MCPError when it does not say."""
        from mcp.types import PaginatedRequestParams

        client = await self.connect()
        self._said_listed, listed = False, self.listed
        tools: dict[str, Offered] = {}
        seen: set[str | None] = set()
        cursor: str | None = None
        while cursor not in seen and len(seen) < _PAGES:
            seen.add(cursor)
            params = PaginatedRequestParams(cursor=cursor) if cursor else None
            page = await self._bounded(client.session.list_tools(params=params), self.config.connect_timeout, "list its tools")
            for tool in page.tools:
                self._take(tools, tool.model_dump(by_alias=True, mode="json"))
            cursor = page.next_cursor
            if not cursor:
                break
        else:
            self._warn("its list of tools has no end; what came so far is offered")
        kept = self._within_bounds(list(tools.values()))
        self._known, self._known_at = {tool.name: tool.digest for tool in kept}, listed
        return kept

    def _within_bounds(self, tools: list[Offered]) -> list[Offered]:
        """As many of them, in order, as a list of tools may take."""
        kept, size = list[Offered](), 0
        for tool in tools[:TOOLS]:
            size += tool.size
            if size > _TOOLS_BYTES:
                break
            kept.append(tool)
        if len(kept) < len(tools):
            self._warn(f"it offers {len(tools):,} tools, and the first {len(kept):,} are taken; allow= names those that you need")
        return kept

    def _take(self, tools: dict[str, Offered], entry: Mapping[str, Any]) -> None:
        name = entry["name"]
        if name in tools:
            self._warn(f"it offers two tools named {display(name[:80])}; the first one counts")
            return
        hints = {key: value for key, value in (entry.get("annotations") or {}).items() if isinstance(value, bool)}
        meta = entry.get("_meta") or {}
        tools[name] = Offered(
            name, entry.get("description") or "", entry["inputSchema"], entry.get("outputSchema"), hints,
            str(meta.get("digest", "")), int(meta.get("size", 0)), entry.get("title") or "",
        )  # fmt: skip

    async def call(
        self, tool: str, digest: str, arguments: Mapping[str, Any], timeout: float, on_progress: Callable[[str], None]
    ) -> dict[str, Any]:
        """A tool's answer as JSON values. MCPError if none comes, or the tool is not that of the digest any more; a call is never
        sent twice."""
        from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult

        client = await self.connect()
        if self.listed != self._known_at:  # it says that its tools changed, or was started again
            await self.list_tools()
        if self._known.get(tool, digest) != digest:
            raise self._error(f"its tool {display(tool[:80])} changed after this call was allowed; call it again")

        async def progress(progress: float, total: float | None, message: str | None) -> None:
            on_progress(_progress_line(progress, total, message))

        request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=dict(arguments)))
        # Not client.call_tool: it checks the result with the server's own regular expressions, which may run for years.
        sent = client.session.send_request(
            request, CallToolResult, request_read_timeout_seconds=timeout, progress_callback=progress
        )
        answer = await self._bounded(sent, timeout, "answer")
        self._failures = 0
        return answer.model_dump(by_alias=True, mode="json", exclude_none=True)

    async def _bounded(self, work: Awaitable[T], seconds: float, what: str) -> T:
        """Wait for an answer, no longer than ``seconds`` and a little; whatever else comes is a MCPError."""
        import mcp

        watch = self._watch
        try:
            return await asyncio.wait_for(work, seconds + _GRACE)
        except TimeoutError:
            raise self._error(f"it did not {what} within {seconds:g} s") from None
        except mcp.MCPError as e:
            if e.code == mcp.types.REQUEST_TIMEOUT:
                raise self._error(f"it did not {what} within {seconds:g} s") from None
            if e.message == "Connection closed" or watch.over.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(watch.over.wait(), PATIENCE)
                watch.end("it closed the connection")
                raise self._error(watch.reason) from None
            if "Session terminated" in e.message and self.config.url is not None:
                watch.end("it forgot the session")
                raise self._error(watch.reason) from None
            # What pydantic found is for programmers.
            said = e.message.partition(":")[0] if "validation error" in e.message else e.message
            raise self._error(f"it refused: {one_line(said)}{watch.last_words if self.config.url else ''}") from None
        except Exception as e:
            raise self._error(f"it did not {what} as it must: {_words(e)}") from None

    async def close(self) -> None:
        """End the connection and the server's processes, whatever the server does."""
        self._closing = True
        if self._revival is not None:
            self._revival.cancel()
        self._watch.over.set()
        await self._end_task()

    async def _end_task(self) -> None:
        """Wait for the task of an ended connection; cancel it when the SDK cannot let go."""
        task, self._task, self._client = self._task, None, None
        if task is None:
            return
        for _ in range(2):
            done, _ = await asyncio.wait([task], timeout=_CLOSE_SECONDS / 2)
            if done:
                break
            self._watch.kill()
            task.cancel()
        if task.done() and not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain of it

    def _error(self, why: str) -> MCPError:
        return MCPError(f"MCP server {self.config.name}: {why}")


def _refuses_handshake(error: BaseException) -> bool:
    import mcp

    codes = (mcp.types.METHOD_NOT_FOUND, mcp.types.UNSUPPORTED_PROTOCOL_VERSION)
    return isinstance(error, mcp.MCPError) and error.code in codes


def _innermost(error: Exception) -> Exception:
    """What happened first in a group of errors; task groups wrap one in the other."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _words(error: BaseException) -> str:
    """An error of the SDK in one line that a person and a model may read."""
    if isinstance(error, Exception):
        error = _innermost(error)
    name = type(error).__name__
    if name == "ValidationError":
        return "its answer is not what the protocol wants"
    said = one_line(str(error))
    return said if isinstance(error, MCPError) or (said and name == "MCPError") else f"{name}: {said}" if said else name


def _progress_line(done: float, total: float | None, message: str | None) -> str:
    count = f"{done:g}/{total:g}" if total else f"{done:g}"
    said = one_line(message or "")
    return f"{said} ({count})" if said else count
