"""What a script may see and change of a run: every event, and every tool call before and after it runs."""

from __future__ import annotations

import contextlib
import copy
import inspect
import queue
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.errors import SprigError
from agent.events import Event
from agent.messages import ToolCall
from agent.tools.result import ToolError, ToolResult, failure, to_result

if TYPE_CHECKING:
    import asyncio

_LOOK_SECONDS = 0.02  # how often the wait for a coroutine looks whether the run is cancelled
_GRACE = 1.0  # seconds that a cancelled coroutine gets to clean up


class _Cancelled(Exception):
    """The run was cancelled while a hook waited."""


class HookError(SprigError):
    """A hook of the script failed; ``__cause__`` is what it raised. The run is over, the conversation up to there is kept."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Functions of the script; each may be None.

    Attributes:
        on_event: gets each event of each run, before ``stream`` hands it out.
        before_tool: gets a call that fits its tool's schema, before it is approved. It returns None, or the call with other
            arguments, which are checked and approved as if the model had written them; ToolError refuses the call.
        after_tool: gets the call that ran and its result, before anybody else does. It returns None, a text in the place of the
            result's (data and picture go), or another ToolResult.
        settled: makes a value of what these return, which may be a coroutine.
    """

    on_event: Callable[[Event], Any] | None = None
    before_tool: Callable[[ToolCall], Any] | None = None
    after_tool: Callable[[ToolCall, ToolResult], Any] | None = None
    settled: Callable[[Any], Any] = lambda value: value

    def watched(self, events: Generator[Event]) -> Iterator[Event]:
        """The same events, each shown to ``on_event`` first; where that fails, ``events`` are closed. Raises HookError."""
        return events if self.on_event is None else self._shown(events, self.on_event)

    def _shown(self, events: Generator[Event], on_event: Callable[[Event], Any]) -> Iterator[Event]:
        with contextlib.closing(events):
            for event in events:
                with contextlib.suppress(_Cancelled), _named("on_event"):
                    self.settled(on_event(event))
                yield event

    def before(self, call: ToolCall) -> ToolCall:
        """The call as it is to run. Raises ToolError when it is refused, HookError when the hook fails."""
        if self.before_tool is None:
            return call
        shown = replace(call, arguments=copy.deepcopy(dict(call.arguments)))  # what it changes there changes nothing here
        try:
            with _named("before_tool"):
                changed = self.settled(self.before_tool(shown))
        except _Cancelled:
            raise ToolError("not run: the run was cancelled") from None
        if changed is None:
            return call
        if not isinstance(changed, ToolCall) or changed.name != call.name or not isinstance(changed.arguments, Mapping):
            raise HookError(
                f"before_tool returned {_short(changed)} for a call of {call.name}: return None or the same call with other "
                "arguments, or raise ToolError to refuse it"
            )
        return replace(changed, id=call.id)

    def after(self, call: ToolCall, result: ToolResult) -> ToolResult:
        """The result as the model, the session and the events have it. Raises HookError."""
        if self.after_tool is None:
            return result
        try:
            with _named("after_tool"):
                changed = self.settled(self.after_tool(call, result))
        except _Cancelled:
            return failure("cancelled", result.seconds)  # the result as it was is for nobody
        if changed is None:
            return result
        if isinstance(changed, str):
            return replace(to_result(changed, result.seconds), ok=result.ok)
        if isinstance(changed, ToolResult):
            return to_result(changed, result.seconds)
        raise HookError(f"after_tool returned {_short(changed)} for {call.name}: return None, a text or a ToolResult")


@contextlib.contextmanager
def _named(hook: str) -> Iterator[None]:
    """What a hook raises becomes one line that names it."""
    try:
        yield
    except _Cancelled:
        raise
    except Exception as e:
        if hook == "before_tool" and isinstance(e, ToolError):
            raise
        said = " ".join(str(e).split())
        raise HookError(f"{hook} raised {type(e).__name__}{f': {said}' if said else ''}") from e


def _short(value: Any) -> str:
    return str(value) if isinstance(value, bool) else f"a value of type {type(value).__name__}"


def settled(value: Any, loop: asyncio.AbstractEventLoop | None, cancelled: threading.Event) -> Any:
    """What a function of the script gave; a coroutine is awaited, in the loop of the caller where there is one.

    A run that is cancelled meanwhile cancels the coroutine, and an exception says so.
    """
    if not inspect.isawaitable(value):
        return value
    import asyncio  # late: it is slow to load

    with contextlib.nullcontext(loop) if loop is not None else _own_loop() as there:
        future, done = asyncio.run_coroutine_threadsafe(_awaited(value), there), threading.Event()
        future.add_done_callback(lambda _: done.set())
        while not done.wait(_LOOK_SECONDS):
            if cancelled.is_set():
                future.cancel()
                raise _Cancelled
        return future.result()


@contextlib.contextmanager
def _own_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop in a thread of its own: in this thread one may be running already, as in a notebook."""
    import asyncio

    begun: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event] | None] = queue.SimpleQueue()

    async def work() -> None:
        over = asyncio.Event()
        begun.put((asyncio.get_running_loop(), over))
        await over.wait()

    def run() -> None:
        try:
            asyncio.run(work())
        finally:
            begun.put(None)

    thread = threading.Thread(target=run, daemon=True, name="sprig-hook")
    thread.start()
    if (found := begun.get()) is None:
        raise OSError("the system gives no event loop; close some files")
    loop, over = found
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(_GRACE)


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value
