"""A tool that runs in a thread of its own, so that what it says on the way can be shown meanwhile."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from agent.messages import ToolCall
from agent.tools.define import Tool
from agent.tools.result import ToolContext, ToolResult, failure, failure_of

_POLL = 0.02  # seconds until a cancellation or the end of the time is noticed
_LINES = 100  # of progress that are passed on; a tool that floods is not heard further


def progressing(tool: Tool, call: ToolCall, context: ToolContext, seconds: float | None) -> Iterator[str | ToolResult]:
    """Run a call: lines of progress, and the result at last.

    Args:
        tool, call: what to run.
        context: its ``cancelled`` ends the waiting.
        seconds: that are left for it, beside its own timeout; None for no limit.
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
            said.put(tool.invoke(call.arguments, replace(context, cancelled=stop, progress=progress)))
        except BaseException as e:  # invoke promises not to raise; a broken tool class may
            said.put(failure_of(e))

    start = time.monotonic()
    stop = threading.Event()
    threading.Thread(target=work, daemon=True, name=f"tool {tool.name}").start()
    try:
        while True:
            if context.cancelled.is_set():
                stop.set()
            try:
                item = said.get(timeout=_POLL)
            except queue.Empty:
                if seconds is not None and time.monotonic() - start > seconds:
                    yield failure(f"the time for the whole run was up after {seconds:.0f} s", time.monotonic() - start)
                    return
                continue
            yield item
            if isinstance(item, ToolResult):
                return
    finally:
        stop.set()  # nobody waits for it any more
