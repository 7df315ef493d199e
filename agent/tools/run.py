"""Running a tool's function: with a deadline, with a way to cancel, and so that nothing it does reaches the loop.

A Python thread cannot be stopped from outside. A sync function that is late is left behind in its daemon thread, with
``context.cancelled`` set; an async one is cancelled; an isolated one is killed with everything it started.
"""

from __future__ import annotations

import contextvars
import dataclasses
import inspect
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from agent.tools.result import ToolContext, ToolResult, failure, failure_of, to_result

_POLL = 0.02  # seconds until a cancellation is noticed


@dataclasses.dataclass(slots=True)
class _Call:
    """One call in its thread."""

    function: Callable[..., Any]
    values: dict[str, Any]
    stop: threading.Event
    done: threading.Event = dataclasses.field(default_factory=threading.Event)
    result: ToolResult | None = None
    cancel: Callable[[], None] = lambda: None

    def run(self) -> None:
        began = time.monotonic()
        try:
            value = self.function(**self.values)
            if inspect.isawaitable(value):
                import asyncio  # late: it is slow to load, and most tools are plain functions

                value = asyncio.run(self._wait_for(value))
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
    call = _Call(function, arguments, stop)
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
            seconds = time.monotonic() - began
            return failure(f"no result within {timeout:g} s" if late else "cancelled", seconds)
    assert call.result is not None
    return call.result
