"""A function in a forked process of its own, so that its crash, its exit and its children stay there.

Forked, not spawned: a script without a ``__main__`` guard would run again, and closures and lambdas could not be sent.
The fork is taken by a supervisor (agent.children.supervisor), which forks again: it ends what the function leaves behind.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NoReturn

from agent.children import sandbox, supervisor
from agent.children.launch import FORKING
from agent.children.orphan import end_with_parent
from agent.children.rules import UNLIMITED, ResourceLimits
from agent.tools.gather import Gathered
from agent.tools.result import ToolResult, failure, failure_of, to_result

_GRACE = 0.2
_POLL = 0.02
_MAX_ANSWER = 1 << 24


def run_isolated(
    function: Callable[..., Any], values: Mapping[str, Any], cancelled: threading.Event, timeout: float | None
) -> ToolResult:
    """Run ``function(**values)`` in a process of its own and wait for it; what it returns comes back as a result."""
    began = time.monotonic()
    answer, answer_end = os.pipe()
    status, status_end = os.pipe()
    lifeline_end, lifeline = os.pipe()
    ours, theirs = (answer, status, lifeline), (answer_end, status_end, lifeline_end)
    try:
        # One at a time also for what watches forks, such as filelock, which huggingface_hub brings: it refuses two.
        with FORKING, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads: the child only runs the function
            child = os.fork()
    except (OSError, RuntimeError) as e:
        for fd in (*ours, *theirs):
            os.close(fd)
        return failure_of(e)
    if child == 0:
        _supervise(function, values, timeout, ours, theirs)
    for fd in theirs:
        os.close(fd)
    try:
        stopped = _drain({answer: bytearray(), status: bytearray()}, lifeline, cancelled, timeout)
    finally:
        for fd in (answer, status):
            os.close(fd)
        with contextlib.suppress(OSError):
            os.close(lifeline)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # it has ended by now, or hangs
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)  # killed, it is gone at once: it reads no disk
    return _result(stopped, time.monotonic() - began, timeout)


_Drained = tuple[bytes, dict[str, Any], bool]


def _drain(pipes: dict[int, bytearray], lifeline: int, cancelled: threading.Event, timeout: float | None) -> _Drained:
    """What came through the answer's and the status pipe, and whether the call was cancelled."""
    answer, status = pipes
    last = None if timeout is None else time.monotonic() + timeout + 5
    pending, was_cancelled = set(pipes), False
    while pending:
        now = time.monotonic()
        if cancelled.is_set() and not was_cancelled:
            was_cancelled, last = True, now + 5
            with contextlib.suppress(BrokenPipeError):  # it has just ended
                os.write(lifeline, b"x")
        if last is not None and now > last:
            break
        for fd in select.select(list(pending), [], [], _POLL)[0]:
            data = os.read(fd, 1 << 16)
            if not data:
                pending.discard(fd)
            elif len(pipes[fd]) < _MAX_ANSWER:
                pipes[fd] += data
        if status not in pending and not select.select([answer], [], [], 0)[0]:
            break  # something that could not be killed may still hold the answer's pipe
    facts: dict[str, Any] = {}
    for line in pipes[status].splitlines():
        with contextlib.suppress(ValueError):
            facts.update(json.loads(line))
    return bytes(pipes[answer]), facts, was_cancelled


def _result(drained: _Drained, seconds: float, timeout: float | None) -> ToolResult:
    raw, facts, cancelled = drained
    if cancelled:
        return failure("cancelled", seconds)
    if facts.get("timed_out"):
        return failure(f"no result within {timeout:g} s", seconds)
    with contextlib.suppress(ValueError, TypeError):
        return ToolResult(**{**json.loads(raw), "seconds": seconds})
    status = facts.get("status")
    if status is not None and status < 0:
        with contextlib.suppress(ValueError):
            return failure(f"the tool's process died of {signal.Signals(-status).name}", seconds)
    ended = f"exited with status {status}" if status is not None else "died"
    return failure(f"the tool's process {ended} and gave no result", seconds)


def _supervise(
    function: Callable[..., Any], values: Mapping[str, Any], timeout: float | None, ours: tuple[int, ...], theirs: tuple[int, ...]
) -> NoReturn:
    answer, status, lifeline = theirs
    try:
        for fd in ours:
            os.close(fd)
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        sandbox.become_subreaper()
        end_with_parent(signal.SIGCONT)
        me = os.getpid()
        child = os.fork()
        if child == 0:
            end_with_parent(signal.SIGKILL, me)
            os.close(status)
            os.close(lifeline)
            _work(function, values, answer)
        os.close(answer)
        supervisor.tell(status, supervisor.supervise(child, lifeline, timeout, _GRACE))
    finally:
        os._exit(0)


def _work(function: Callable[..., Any], values: Mapping[str, Any], answer: int) -> NoReturn:
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nowhere, 0)
        free = UNLIMITED  # it is the script's own code: only a fork bomb and a core dump are held off
        sandbox.set_limits(ResourceLimits(memory=free, cpu=free, file_size=free, files=free))
        try:
            gathered = Gathered()
            value = gathered.begin(function(**values))
            if inspect.isawaitable(value):
                import asyncio

                value = asyncio.run(_awaited(value))
            result = to_result(gathered.finish(value))
        except BaseException as e:
            result = failure_of(e)
        raw = memoryview(json.dumps(asdict(result)).encode("utf-8", "replace"))
        while raw:
            raw = raw[os.write(answer, raw) :]
    finally:
        os._exit(0)


async def _awaited(value: Any) -> Any:
    return await value
