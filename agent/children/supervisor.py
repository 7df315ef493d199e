"""The process between the agent and what a model asked to run: starts it confined, ends it in time, leaves nothing behind.

It runs ``python -m``-like with the standard library alone, because it starts for every call. On standard input comes one job
(agent.children.wire); after that standard input is the lifeline: when it ends, be it because the agent gave up or because
it died, everything here ends. On the status pipe go lines of JSON: {"confined"}, {"failed"}, {"status", ...}. A job that is
"guarded" names the folder in which nothing that decides what runs may be changed or made (agent.children.protected).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

from agent.children import namespaces, protected, sandbox
from agent.children.orphan import end_with_parent
from agent.children.rules import Rules
from agent.children.wire import Wire
from agent.errors import SprigError

_NAMED = 20  # paths that are told of
_ROUNDS = 100  # of looking for processes that are still left


def main() -> NoReturn:
    end_with_parent(signal.SIGCONT)  # killed, it could not end what it watches; awake, it sees that the lifeline has ended
    status_fd = int(sys.argv[-1])
    try:
        job = Wire(0).receive()
    except EOFError:  # nobody is there any more
        os._exit(1)
    code = 0
    try:
        _watch_over(job, status_fd)
    except BaseException as e:
        tell(status_fd, {"failed": f"{type(e).__name__}: {e}"})
        code = 1
    os._exit(code)


def _watch_over(job: dict[str, Any], status_fd: int) -> None:
    rules = Rules.from_dict(job["rules"])
    guarded = job["guarded"]
    before = protected.find(guarded, job["own"]) if guarded else {}
    rules = replace(rules, kept=tuple(before))
    sandbox.become_subreaper()
    me, start = os.getpid(), _target
    if "namespaces" in job["layers"]:
        namespaces.separate(rules.network)
        me, start = 0, _first_process  # seen from in there, nobody is its parent
    child = os.fork()
    if child == 0:
        start(job, rules, status_fd, me)
    tell(status_fd, {"started": child})
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)  # only what was asked for holds the output open
    os.dup2(nowhere, 2)
    ended = supervise(child, 0, job["seconds"], job["grace"])
    if start is _first_process and ended["status"] == 0:  # it has told the rest itself
        ended = {"timed_out": ended["timed_out"]}
    if guarded:
        changed = protected.set_aside(guarded, before)
        ended |= {"kept": sorted(os.path.relpath(path, guarded) for path in before)[:_NAMED], "set_aside": changed[:_NAMED]}
    tell(status_fd, ended)


def tell(fd: int, fact: dict[str, Any]) -> None:
    """Write one line to the status pipe; whoever does not listen any more need not know."""
    with contextlib.suppress(OSError):
        os.write(fd, json.dumps(fact).encode()[:4000] + b"\n")


# ---- the process that does the work ----


def _first_process(job: dict[str, Any], rules: Rules, status_fd: int, parent: int) -> NoReturn:
    """The first process of a namespace. When it ends, the kernel ends all others in there."""
    try:
        os.setsid()
        end_with_parent(signal.SIGKILL, parent)
        # The kernel keeps signals from the first process that it does not handle. Until there is another, it is what is ended.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
        namespaces.enter_view(rules)
        sandbox.drop_capabilities()
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _target(job, rules, status_fd, 1)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sandbox.hide_from_others()
        pid = 0
        while pid != child:  # the others are orphans that it has been left with
            pid, status = os.waitpid(-1, 0)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        left = len([name for name in os.listdir("/proc") if name.isdigit()]) - 1  # noqa: PTH208
        tell(status_fd, {"status": os.waitstatus_to_exitcode(status), "left": max(0, left)})
        os._exit(0)
    except BaseException as e:
        tell(status_fd, {"failed": str(e)})
    finally:
        os._exit(127)


def _target(job: dict[str, Any], rules: Rules, status_fd: int, parent: int) -> NoReturn:
    try:
        if parent != 1:
            os.setsid()
        end_with_parent(signal.SIGKILL, parent)
        nowhere = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nowhere, 0)
        os.umask(0o077)
        os.chdir(job["folder"])
        if job["module"]:
            _run_module(job, rules, status_fd)
        else:
            _exec(job, rules, status_fd)
    except BaseException as e:
        tell(status_fd, {"failed": _why(e, job)})
    finally:
        os._exit(127)


def _why(error: BaseException, job: dict[str, Any]) -> str:
    if isinstance(error, FileNotFoundError) and job["argv"]:
        return f"no such command: {job['argv'][0]}"
    if isinstance(error, PermissionError) and job["argv"]:
        return f"not allowed to run {job['argv'][0]}"
    return f"{type(error).__name__}: {error}"


def _exec(job: dict[str, Any], rules: Rules, status_fd: int) -> None:
    tell(status_fd, {"confined": sandbox.confine(rules, job["layers"])})
    argv = _expand(list(job["argv"]), job["wild"])  # in here, so that a wildcard sees no more than the program will
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them; programs expect to die of them
        signal.signal(number, signal.SIG_DFL)
    os.set_inheritable(status_fd, False)
    os.execvpe(argv[0], argv, job["environment"])


def _expand(argv: list[str], wild: list[int]) -> list[str]:
    """Wildcards replaced by the names that match, as a shell would; where none does, the word stays.

    A name that begins with a dash gets ``./`` before it, so that a file cannot pass for an option.
    """
    if not wild:
        return argv
    import glob

    words: list[str] = []
    for i, word in enumerate(argv):
        names = sorted(glob.glob(word)) if i in wild else []  # noqa: PTH207
        words += [f"./{name}" if name.startswith("-") else name for name in names] or [word]
    return words


def _run_module(job: dict[str, Any], rules: Rules, status_fd: int) -> NoReturn:
    module, _, name = job["module"].partition(":")
    work: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    tell(status_fd, {"confined": sandbox.confine(rules, job["layers"])})
    os.close(status_fd)
    try:
        answer = {"value": work(job["payload"])}
    except MemoryError:
        answer = {"error": "it takes more memory than a tool may have"}
    except Exception as e:
        answer = {"error": str(e) if isinstance(e, SprigError) else f"{type(e).__name__}: {e}"}
    raw = memoryview(json.dumps(answer).encode())
    while raw:
        raw = raw[os.write(1, raw) :]
    os._exit(0)


# ---- the process that watches ----


def supervise(child: int, lifeline: int, seconds: float | None, grace: float) -> dict[str, Any]:
    """Wait for a child, a deadline or the end of the lifeline; then end the child and all that comes from it.

    Args:
        child: its process id; it leads a session.
        lifeline: readable when nobody waits for the child any more.
        seconds: until it is told to end; None, for ever.
        grace: seconds from SIGTERM to SIGKILL.

    Returns:
        status (negative: the signal it died of), timed_out, and left: how many other processes had to be killed.
    """
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    deadline = None if seconds is None else time.monotonic() + seconds
    watch = _Watch(child, wake)
    timed_out = False
    if not watch.until([lifeline], deadline):
        timed_out = deadline is not None and time.monotonic() >= deadline
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGTERM)
        watch.until([], time.monotonic() + grace)
    left = end_descendants(child, watch.reap)
    return {"status": watch.status, "timed_out": timed_out, "left": left}


class _Watch:
    def __init__(self, child: int, wake: int) -> None:
        self.child, self.wake = child, wake
        self.status: int | None = None

    def until(self, others: list[int], deadline: float | None) -> bool:
        """Whether the child has ended; False at the deadline or when something else is readable."""
        while True:
            self.reap()
            if self.status is not None:
                return True
            rest = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = select.select([self.wake, *others], [], [], rest)[0]
            if self.wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake, 4096)
                continue
            if ready or rest == 0.0:
                self.reap()
                return self.status is not None

    def reap(self) -> None:
        """Collect what has ended; the kernel keeps it until then."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.child:
                    self.status = os.waitstatus_to_exitcode(status)


def end_descendants(session: int, reap: Callable[[], None]) -> int:
    """Kill every process of the session and every descendant of this process; how many there were besides its leader.

    All are stopped first, so that none can start another while they are counted.
    """
    killed: set[int] = set()
    for _ in range(_ROUNDS):
        reap()
        left = _descendants(session)
        if not left:
            break
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        killed |= left - {session}
        time.sleep(0.002)
    reap()
    return len(killed)


def _descendants(session: int) -> set[int]:
    """proc(5), /proc/PID/stat: state, parent, group and session follow the last parenthesis."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as f:  # noqa: PTH123  (pathlib would double the start-up time)
                fields = f.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] in (b"Z", b"X"):
            continue
        pid = int(name)
        parents[pid] = int(fields[1])
        if int(fields[3]) == session:
            found.add(pid)
    me, grown = os.getpid(), True
    while grown:
        more = {pid for pid, parent in parents.items() if (parent == me or parent in found) and pid not in found and pid != me}
        grown = bool(more)
        found |= more
    return found


def probed(payload: Any) -> str:
    """What runs to see whether a process survives its confinement."""
    return "held"
