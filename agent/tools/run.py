"""Running a tool's function: with a deadline, with a way to cancel, and so that nothing it does reaches the loop.

A Python thread cannot be stopped from outside. A sync function that is late is left behind in its daemon thread, with
``context.cancelled`` set; an async one is cancelled; an isolated one is killed with everything it started. Of a generator, what
it has given by then is the result.
"""

from __future__ import annotations

import contextvars
import dataclasses
import inspect
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from agent.messages import ToolCall
from agent.tools.gather import Gathered
from agent.tools.result import ToolContext, ToolResult, failure, failure_of, to_result

if TYPE_CHECKING:
    import asyncio

_POLL = 0.02  # seconds until a cancellation or the end of the time is noticed
_GRACE = 1.0  # seconds that a cancelled coroutine gets to clean up
_LATE = 2.0  # seconds that a call gets to end once it is cancelled; then it is left behind
_LINES = 100  # of progress that are passed on; a tool that floods is not heard further


@dataclasses.dataclass(slots=True)
class _Call:
    """One call in its thread."""

    function: Callable[..., Any]
    values: dict[str, Any]
    stop: threading.Event
    loop: asyncio.AbstractEventLoop | None  # of the caller; None, a coroutine gets one of its own
    awaits: bool = False
    done: threading.Event = dataclasses.field(default_factory=threading.Event)
    result: ToolResult | None = None
    cancel: Callable[[], None] = lambda: None
    gathered: Gathered = dataclasses.field(default_factory=Gathered)

    def run(self) -> None:
        began = time.monotonic()
        try:
            value = self.gathered.begin(self.function(**self.values))
            if inspect.isawaitable(value):
                import asyncio  # late: it is slow to load, and most tools are plain functions

                self.awaits = True
                waiting = self._wait_for(value)
                loop = self.loop
                value = asyncio.run_coroutine_threadsafe(waiting, loop).result() if loop else asyncio.run(waiting)
            value = self.gathered.finish(value, self.stop.is_set)
            self.result = to_result(value, time.monotonic() - began)
        except BaseException as e:  # SystemExit and KeyboardInterrupt too: they are the tool's, not ours
            self.result = failure_of(e, time.monotonic() - began)
        finally:
            self.done.set()

    async def _wait_for(self, value: Any) -> Any:
        import asyncio

        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def cancel() -> None:
            try:
                loop.call_soon_threadsafe(task.cancel)
            except RuntimeError:  # it has just ended by itself
                return

        self.cancel = cancel
        if self.stop.is_set():
            raise asyncio.CancelledError
        return await value


def run_call(
    function: Callable[..., Any],
    values: Mapping[str, Any],
    context_name: str,
    context: ToolContext,
    timeout: float | None,
    isolate: bool,
) -> ToolResult:
    """Run ``function(**values)`` and wait for it: until it ends, ``timeout`` seconds pass, or ``context`` is cancelled."""
    began = time.monotonic()
    if context.cancelled.is_set():
        return failure("cancelled")
    stop = threading.Event()
    arguments = dict(values)
    if context_name:
        arguments[context_name] = dataclasses.replace(context, cancelled=stop)
    if isolate:
        from agent.tools.isolate import run_isolated

        return run_isolated(function, arguments, context.cancelled, timeout)
    call = _Call(function, arguments, stop, context.loop)
    thread = threading.Thread(target=contextvars.copy_context().run, args=(call.run,), name="sprig-tool", daemon=True)
    try:
        thread.start()
    except RuntimeError as e:  # no more threads
        return failure_of(e)
    while not call.done.wait(_POLL):
        late = timeout is not None and time.monotonic() - began >= timeout
        if late or context.cancelled.is_set():
            if call.done.is_set():  # asked before it is stopped: what comes after that is our doing
                break
            stop.set()
            call.cancel()
            if call.awaits:
                call.done.wait(_GRACE)
            seconds = time.monotonic() - began
            if late and call.gathered.begun:
                return to_result(call.gathered.result(f"no more within {timeout:g} s"), seconds)
            return failure(f"no result within {timeout:g} s" if late else "cancelled", seconds)
    assert call.result is not None
    return call.result


def progressing(
    invoke: Callable[[Mapping[str, Any], ToolContext], ToolResult],
    call: ToolCall,
    context: ToolContext,
    seconds: float | None,
    variables: contextvars.Context | None = None,
) -> Iterator[str | ToolResult]:
    """Run a call in a thread of its own, so that what it says on the way can be shown: lines of progress, and the result at last.

    Args:
        invoke, call: what to run, and with what.
        context: its ``cancelled`` ends the waiting.
        seconds: that are left for it, beside its own timeout; None for no limit.
        variables: context variables that it finds; None, those of the caller.
    """
    said: queue.SimpleQueue[str | ToolResult] = queue.SimpleQueue()
    lines = 0

    def progress(line: str) -> None:
        nonlocal lines
        if lines < _LINES:
            lines += 1
            said.put(str(line))

    def work() -> None:
        try:
            said.put(invoke(call.arguments, dataclasses.replace(context, cancelled=stop, progress=progress)))
        except BaseException as e:  # invoke promises not to raise; a broken tool class may
            said.put(failure_of(e))

    start = time.monotonic()
    stopped: float | None = None
    stop = threading.Event()
    variables = variables if variables is not None else contextvars.copy_context()
    threading.Thread(target=variables.run, args=(work,), daemon=True, name=f"tool {call.name}").start()
    try:
        while True:
            if context.cancelled.is_set() and stopped is None:
                stopped = time.monotonic()
                stop.set()
            try:
                item = said.get(timeout=_POLL)
            except queue.Empty:
                if seconds is not None and time.monotonic() - start > seconds:
                    yield failure(f"the time for the whole run was up after {seconds:.0f} s", time.monotonic() - start)
                    return
                if stopped is not None and time.monotonic() - stopped > _LATE:
                    yield failure("cancelled", time.monotonic() - start)
                    return
                continue
            yield item
            if isinstance(item, ToolResult):
                return
    finally:
        stop.set()  # nobody waits for it any more
