"""MCP servers as tools (https://modelcontextprotocol.io), through the official ``mcp`` package, which is the extra ``mcp``.

The agent is synchronous; the SDK is not. All connections live on one event loop in a daemon thread, and every wait for it has a
deadline here: a server that dies, hangs, floods or lies becomes an error in one line.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from agent.home import home
from agent.messages import ToolSpec
from agent.text import display
from agent.tools.define import Tool
from agent.tools.mcp.config import MCPError, ServerConfig
from agent.tools.mcp.connection import ServerConnection
from agent.tools.mcp.known import KnownTools
from agent.tools.mcp.result import convert
from agent.tools.mcp.schema import Offered, Pins, public_names
from agent.tools.result import ToolContext, ToolResult, failure

log = logging.getLogger(__name__)

__all__ = ["MCPError", "MCPEvent", "MCPServers", "MCPTool", "ServerConfig"]

T = TypeVar("T")
_POLL = 0.05  # seconds until a cancellation is noticed
_LATE = 3.0  # seconds beyond a deadline of the loop's own until the loop itself is not waited for
_PROGRESS = 100  # lines that wait to be shown
_EVENTS = 200
_PAUSE = 60.0  # seconds in which a server that did not list its tools is not asked again
_CHANGED = "its title, description, schema or annotations changed since it was first seen"


@dataclass(frozen=True, slots=True)
class MCPEvent:
    """Something that a person may want to know of a server.

    Attributes:
        server: its name.
        kind: it is connected; it or its connection ended; its list of tools is another; or something is wrong with it.
        text: in words, safe to show.
    """

    server: str
    kind: Literal["connected", "ended", "tools", "warning"]
    text: str


@dataclass(frozen=True, slots=True)
class MCPTool:
    """A tool of a server.

    Attributes:
        spec: what the model is told; its name is ``server__tool``.
        server: the server's name.
        remote: the tool's name there.
        annotations: what the server claims of it, like ``readOnlyHint``; nothing proves it.
        changed: whether it is another one than was first seen: it must be approved anew.
        timeout: seconds that a call may take.
    """

    spec: ToolSpec
    server: str
    remote: str
    annotations: Mapping[str, bool]
    changed: bool
    timeout: float
    _offered: Offered
    _servers: MCPServers

    def call(
        self,
        arguments: Mapping[str, Any],
        on_progress: Callable[[str], None] = lambda line: None,
        cancelled: threading.Event | None = None,
        timeout: float | None = None,
    ) -> ToolResult:
        """Call it and wait. Never raises; a server that does not answer in time is an error in the result."""
        return self._servers.call(self, arguments, on_progress, cancelled or threading.Event(), timeout or self.timeout)

    @property
    def version(self) -> str:
        """Another one whenever the server says anything else of the tool."""
        return self._offered.digest

    def difference(self) -> str:
        """From how a person knows it to how it is now, as a unified diff; untrusted text."""
        return self._servers.difference(self)

    def as_tool(self) -> Tool:
        """For the agent: asked for, unless a rule allows it; and no rule allows what has changed."""

        def call(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
            return self.call(arguments, context.progress, context.cancelled)

        # Its own deadline answers with a better reason, so that of the tool comes later.
        tool = Tool.from_spec(self.spec, call, timeout=self.timeout + 2 * _LATE)
        tool.version = self.version
        tool.doubt = lambda: self._servers.doubt(self)
        return tool


class MCPServers:
    """Some servers, connected while the ``with`` block lasts. What does not connect is an event and an entry of ``errors``.

    Any thread may use it.
    """

    def __init__(
        self,
        configs: Sequence[ServerConfig],
        *,
        on_event: Callable[[MCPEvent], None] | None = None,
        pins: Path | None = None,
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            configs: of the servers; their names must differ.
            on_event: told what happens, from another thread; it must be quick.
            pins: the file that remembers which tools are known, by default ``mcp-tools.json`` in SPRIG_HOME; what they looked
                like is in another beside it.

        Raises:
            MCPError: two servers have one name, or the package ``mcp`` is not installed.
        """
        names = [config.name for config in configs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise MCPError(f"two MCP servers are called {twice}: give each a name of its own")
        if configs:
            _need_sdk()
        self.errors: dict[str, str] = {}
        self.events: deque[MCPEvent] = deque(maxlen=_EVENTS)
        self._configs = tuple(configs)
        self._on_event = on_event
        pins = home() / "mcp-tools.json" if pins is None else pins
        self._pins, self._known = Pins(pins), KnownTools(pins.with_name(f"{pins.stem}-seen.json"))
        self._offers: dict[str, list[Offered]] = {}
        self._listed: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._connections: dict[str, ServerConnection] = {}
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pictures: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        self._pictures = tempfile.TemporaryDirectory(prefix="sprig-mcp-", ignore_cleanup_errors=True)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: None)  # asyncio would write it to the terminal
        self._thread = threading.Thread(target=self._loop.run_forever, name="sprig-mcp", daemon=True)
        self._thread.start()
        try:
            self._connections = self._wait(self._make(), _LATE)
            self._refresh([config.name for config in self._configs])
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all servers and what they started. Takes some seconds when they do not want to."""
        if os.getpid() != self._owner:  # a fork: they are its parent's
            return
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is None:
            return
        closing = asyncio.run_coroutine_threadsafe(self._close_all(), loop)
        with contextlib.suppress(Exception):
            closing.result(15)
        loop.call_soon_threadsafe(loop.stop)
        if self._thread is not None:
            self._thread.join(_LATE)
            if not self._thread.is_alive():
                loop.close()
        if self._pictures is not None:
            self._pictures.cleanup()

    async def _make(self) -> dict[str, ServerConnection]:
        # Asyncio's locks belong to the loop on which they are made.
        return {config.name: ServerConnection(config, self._notifier(config.name)) for config in self._configs}

    async def _close_all(self) -> None:
        await asyncio.gather(*(connection.close() for connection in self._connections.values()), return_exceptions=True)
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=1) if others else None

    def tools(self, stopped: Callable[[], bool] = lambda: False) -> list[Tool]:
        """The tools of all servers that answer, for an agent; asked for again where a server said that they changed.

        A server that does not list them again in time, or before ``stopped`` says so, has those that it had.
        """
        return [tool.as_tool() for tool in self.mcp_tools(stopped)]

    def mcp_tools(self, stopped: Callable[[], bool] = lambda: False) -> list[MCPTool]:
        """The same with all that is known of them."""
        self._look_again(list(self._connections), stopped)
        return self.known_tools()

    def known_tools(self) -> list[MCPTool]:
        """The same as they were listed last; nobody is asked."""
        with self._lock:
            offers = [(config, offered) for config in self._configs for offered in self._offers.get(config.name, [])]
        names = public_names((config.name, offered.name) for config, offered in offers)
        tools = [self._tool(config, offered, names[config.name, offered.name]) for config, offered in offers]
        self._known.save()
        problem = self._pins.save()
        if problem:
            self._notifier("")("warning", problem)
        return tools

    def _tool(self, config: ServerConfig, offered: Offered, name: str) -> MCPTool:
        changed = self._pins.changed(config.name, offered.name, offered.digest)
        if not changed:
            self._known.keep(config.name, offered)
        spec = ToolSpec(name, offered.description, offered.parameters)
        return MCPTool(spec, config.name, offered.name, offered.annotations, changed, config.timeout, offered, self)

    def accept(self, tool: MCPTool) -> MCPTool:
        """A person has seen how the tool is now: it is no longer ``changed``."""
        self._pins.accept(tool.server, tool.remote, tool._offered.digest)
        self._known.keep(tool.server, tool._offered)
        self._known.save()
        return replace(tool, changed=False)

    def difference(self, tool: MCPTool) -> str:
        """See ``MCPTool.difference``."""
        return self._known.difference(tool.server, tool._offered)

    def doubt(self, tool: MCPTool) -> str:
        """Why an earlier yes does not cover the tool: it is not what it was then. Empty when it is."""
        self._look_again([tool.server])
        return _CHANGED if self._pins.changed(tool.server, tool.remote, self._now(tool).digest) else ""

    def _now(self, tool: MCPTool) -> Offered:
        """The tool as its server listed it last."""
        with self._lock:
            return next((o for o in self._offers.get(tool.server, ()) if o.name == tool.remote), tool._offered)

    def log(self, server: str) -> str:
        """The end of what the server wrote to its standard error; untrusted text."""
        return self._connections[server].log if server in self._connections else ""

    def call(
        self,
        tool: MCPTool,
        arguments: Mapping[str, Any],
        on_progress: Callable[[str], None],
        cancelled: threading.Event,
        timeout: float,
    ) -> ToolResult:
        """See ``MCPTool.call``."""
        began = time.monotonic()
        if cancelled.is_set():
            return failure("cancelled")
        connection, pictures = self._connections.get(tool.server), self._pictures
        if connection is None or pictures is None:
            return failure(f"MCP server {tool.server} was closed")
        lines: deque[str] = deque(maxlen=_PROGRESS)
        connecting = connection.config.connect_timeout
        try:
            work = connection.call(tool.remote, self._now(tool).digest, arguments, timeout, lines.append)
            answer = self._wait(work, timeout + connecting + _LATE, cancelled.is_set, lambda: _drain(lines, on_progress))
            return convert(answer, tool._offered.output, Path(pictures.name), time.monotonic() - began)
        except MCPError as e:
            return failure(str(e), time.monotonic() - began)
        except Exception as e:  # whatever a server can still make the SDK do
            return failure(f"MCP server {tool.server}: {type(e).__name__}: {e}", time.monotonic() - began)

    def _look_again(self, names: Sequence[str], stopped: Callable[[], bool] = lambda: False) -> None:
        """Ask those of them for their tools that have said that these changed, or were started again."""
        connections = [(name, self._connections[name]) for name in names if name in self._connections]
        stale = [name for name, connection in connections if connection.listed != self._listed.get(name)]
        now = time.monotonic()
        if self._loop is not None and (due := [name for name in stale if self._not_before.get(name, now) <= now]):
            self._refresh(due, stopped)

    def _refresh(self, names: Sequence[str], stopped: Callable[[], bool] = lambda: False) -> None:
        """Ask these servers for their tools, all at once. One that does not answer has those that it had: a call asks again."""
        connections = {name: self._connections[name] for name in names}
        counts = {name: connection.listed for name, connection in connections.items()}  # what is said from now on counts anew
        asked = {name: self._submit(connection.list_tools()) for name, connection in connections.items()}
        for name, future in asked.items():
            connection, count, before = connections[name], counts[name], self._listed.get(name)
            try:
                if not _settled(future, 2 * connection.config.connect_timeout + _LATE, stopped):
                    raise TimeoutError
                offers, problem = future.result(), ""
            except concurrent.futures.CancelledError:
                continue
            except Exception as e:
                late = isinstance(e, TimeoutError)
                problem = f"MCP server {name}: it did not list its tools in time" if late else str(e)
                offers, count = self._offers.get(name, []), count if before is None else before
                self._not_before[name] = time.monotonic() + _PAUSE
            with self._lock:
                self._offers[name], self._listed[name] = offers, count
                self.errors.pop(name, None)
                if problem:
                    self.errors[name] = problem
            if problem:
                self._notifier(name)("warning", problem)

    def _submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        loop = self._loop
        if loop is None or os.getpid() != self._owner:
            work.close()
            why = "were closed" if loop is None else "belong to the process that started them; a forked process starts its own"
            raise MCPError(f"the MCP servers {why}")
        return asyncio.run_coroutine_threadsafe(work, loop)

    def _wait(
        self,
        work: Coroutine[Any, Any, T],
        seconds: float,
        stopped: Callable[[], bool] = lambda: False,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> T:
        future = self._submit(work)
        try:
            done = _settled(future, seconds, stopped, meanwhile)
        except concurrent.futures.CancelledError:
            raise MCPError("cancelled") from None
        if not done:
            raise MCPError(f"no answer within {seconds:g} s")
        meanwhile()
        return future.result()

    def _notifier(self, server: str) -> Callable[[str, str], None]:
        def notify(kind: str, text: str) -> None:
            event = MCPEvent(server, kind, display(text))  # type: ignore[arg-type]
            if kind != "tools":  # a server may say that a thousand times
                log.info("MCP server %s: %s %s", server, kind, text)
            self.events.append(event)
            if self._on_event is not None:
                with contextlib.suppress(Exception):
                    self._on_event(event)

        return notify


def _settled(
    future: concurrent.futures.Future[T],
    seconds: float,
    stopped: Callable[[], bool],
    meanwhile: Callable[[], None] = lambda: None,
) -> bool:
    """Whether it is done in time; what is not is cancelled. CancelledError when ``stopped`` comes first."""
    deadline = time.monotonic() + seconds
    try:
        while not future.done():
            if stopped():
                raise concurrent.futures.CancelledError
            if time.monotonic() > deadline:
                return False
            concurrent.futures.wait([future], _POLL)
            meanwhile()
        return True
    finally:
        future.cancel()


def _drain(lines: deque[str], on_progress: Callable[[str], None]) -> None:
    with contextlib.suppress(Exception):
        while lines:
            on_progress(lines.popleft())


def _need_sdk() -> None:
    try:
        import mcp  # noqa: F401
    except ImportError:
        raise MCPError("MCP servers need a package: pip install '.[mcp]' in the checkout of Sprig") from None
    # Without a handler of their own, Python would write the SDK's complaints about servers to the terminal.
    for name in ("mcp", "client"):
        logging.getLogger(name).addHandler(logging.NullHandler())
