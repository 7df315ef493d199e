"""Running a command, or one function of Sprig, in a confined process: the agent's side of agent.children.supervisor."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.children import sandbox
from agent.children.launch import PACKAGES, bury, launch
from agent.children.rules import Rules
from agent.children.wire import frame
from agent.errors import SprigError
from agent.text import display

KEEP = 1 << 16  # bytes of output that are kept: half of the beginning, half of the end
_KEEP_ANSWER = 1 << 23  # bytes of a function's answer
GRACE = 2.0  # seconds from SIGTERM to SIGKILL
_PATIENCE = 5.0  # seconds that the supervisor gets on top of its own deadline
_POLL = 0.05
_PIPE = 1 << 18  # bytes that a pipe holds and a read takes
_DENIED = (b"ermission denied", b"not permitted", b"ead-only")  # as programs say it in English, in which they run here
_TERMUX = ("PREFIX", "ANDROID_DATA", "ANDROID_ROOT", "LD_PRELOAD")


class ProcessError(SprigError):
    """A process could not be started, or did not give what it should."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """How a process ended."""

    status: int | None  # exit status; negative, the signal that ended it; None when even that is not known
    output: bytes  # the beginning and the end of what it wrote, with a line between them that says how much is missing
    cut: int  # bytes of the output that are missing
    seconds: float  # that it took
    timed_out: bool
    cancelled: bool
    confined: str  # what held it, as ``report`` says it
    left: int  # processes that it left behind and that were killed
    kept: tuple[str, ...] = ()  # paths in its folder that decide what runs, and that it could not write
    set_aside: tuple[str, ...] = ()  # the same that it made or replaced; they have got another name

    @property
    def notes(self) -> list[str]:
        """What there is to say of the two, for the model and the person."""
        said = [
            f"[{display(path)} decides what runs here, so a command may not make or replace it: it is now called "
            f"{display(path + 'HEAD' if path.endswith('/') else path)}.set-aside. Whoever wants it renames it]"
            for path in self.set_aside
        ]
        named = [path for path in self.kept if os.fsencode(path) in self.output]
        if self.status and not named and any(why in self.output for why in _DENIED):
            named = list(self.kept) if "namespaces" not in self.confined else []
        if self.status and named:
            beside = "" if "namespaces" in self.confined else ", and beside it nothing can be made, renamed or removed"
            said.append(
                f"[{', '.join(map(display, named[:3]))} decides what runs here, so a command may not write it{beside}. "
                "Who wants that changed (git commit, for one) runs it in a terminal]"
            )
        return said


class Ring:
    """The first and the last bytes of a stream, in bounded memory."""

    def __init__(self, keep: int = KEEP) -> None:
        self._half = keep // 2
        self._head, self._tail = bytearray(), bytearray()
        self.size = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if room := self._half - len(self._head):
            self._head += data[:room]
            data = data[room:]
        if len(data) >= self._half:
            self._tail[:] = data[-self._half :]
            return
        self._tail += data
        if len(self._tail) > 2 * self._half:
            del self._tail[: len(self._tail) - self._half]

    def bytes(self) -> tuple[bytes, int]:
        """What is kept, with a line in the middle where something is missing, and how many bytes are missing."""
        tail = bytes(self._tail[-self._half :])
        cut = self.size - len(self._head) - len(tail)
        gap = f"\n[... {cut:,} bytes left out ...]\n".encode() if cut else b""
        return bytes(self._head) + gap + tail, cut


def clean_environment(private: str) -> dict[str, str]:
    """What a command gets to know of ours: no token, no key, no agent's socket."""
    path = os.pathsep.join(p for p in os.environ.get("PATH", os.defpath).split(os.pathsep) if p.startswith("/"))
    language = os.environ.get("LANG", "C.UTF-8")
    kept = {name: os.environ[name] for name in _TERMUX if name in os.environ and "com.termux" in os.environ.get("PREFIX", "")}
    return {**kept, "PATH": path or os.defpath, "HOME": private, "TMPDIR": private, "LANG": language, "TERM": "dumb"}


def run_command(
    argv: Sequence[str],
    folder: Path,
    rules: Rules,
    *,
    seconds: float,
    cancelled: threading.Event | None = None,
    wild: Sequence[int] = (),
) -> Finished:
    """Run a program without a shell, in ``folder``, confined, with a private folder for HOME and temporary files.

    Args:
        seconds: until it is told to end; two more, and it is killed.
        cancelled: ends it when it is set.
        wild: which of the arguments have wildcards, to be replaced by the names that match.

    Raises:
        ProcessError: it could not be started.
    """
    from agent.home import home  # a confined child, which imports this module too, has no other packages

    if os.path.realpath(folder) == "/":
        raise ProcessError("a command cannot have all of the file system as its folder")
    with tempfile.TemporaryDirectory(prefix="sprig-", ignore_cleanup_errors=True) as private:
        private, guarded = os.path.realpath(private), os.path.realpath(folder)
        rules = dataclasses.replace(rules, write=(*rules.write, private))
        job = {"argv": list(argv), "environment": clean_environment(private), "folder": str(folder), "wild": list(wild)}
        job |= {"guarded": guarded, "own": os.path.realpath(home())}
        return _run(job, rules, report().split("+"), seconds, cancelled, KEEP)


def run_function(function: str, payload: Any, rules: Rules, *, seconds: float, cancelled: threading.Event | None = None) -> Any:
    """Run ``module:function`` of Sprig on a JSON value in a confined process, and give back the JSON value it returns.

    Raises ProcessError when it failed, took too long or died; the message is for the model.
    """
    job = {"module": function, "payload": payload, "folder": "/"}
    packages = (*rules.read, *sandbox.system_paths(), PACKAGES)
    done = _run(job, dataclasses.replace(rules, read=packages), report().split("+"), seconds, cancelled, _KEEP_ANSWER)
    if done.cancelled:
        raise ProcessError("cancelled")
    if done.timed_out or done.status == -signal.SIGXCPU:
        raise ProcessError(f"no result within {seconds:g} s")
    try:
        answer = json.loads(done.output)
    except ValueError:
        why = f"it died of signal {-done.status}" if done.status and done.status < 0 else "it gave no answer"
        raise ProcessError(f"the process of this tool failed: {why}") from None
    if "error" in answer:
        raise ProcessError(str(answer["error"]))
    return answer["value"]


@functools.cache
def report() -> str:
    """What confines a command on this machine: "namespaces+landlock+seccomp", what of these there is, or "none".

    It is tried once, in a process that may die of the trying, as it does on some Androids.
    """
    return next(filter(None, map(probe, (sandbox.LAYERS, ("landlock", "seccomp"), ("seccomp",)))), "none")


def confines_files() -> bool:
    """Whether a command that is run here is kept from files outside its root."""
    return "landlock" in report() or "namespaces" in report()


def probe(layers: tuple[str, ...]) -> str:
    """What of these layers holds a process here; empty when the trying kills it, or it may not have namespaces."""
    rules = Rules(read=(*sandbox.system_paths(), PACKAGES))
    job = {"module": "agent.children.supervisor:probed", "payload": None, "folder": "/"}
    try:
        done = _run(job, rules, layers, 10.0, None, 1000)
    except ProcessError:
        return ""
    return done.confined if done.status == 0 and done.confined != "none" else ""


def _run(
    job: Mapping[str, Any], rules: Rules, layers: Sequence[str], seconds: float, cancelled: threading.Event | None, keep: int
) -> Finished:
    empty: dict[str, Any] = {"argv": [], "module": "", "payload": None, "environment": {}, "guarded": "", "own": "", "wild": []}
    whole = {**empty, **job, "rules": dataclasses.asdict(rules), "layers": list(layers), "seconds": seconds, "grace": GRACE}
    status_read, status_write = os.pipe()
    try:
        child = launch(
            "agent.children.supervisor", [str(status_write)], clean_environment("/"), bare=[status_write],
            stderr=subprocess.STDOUT if job.get("argv") else subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as e:
        os.close(status_read)
        raise ProcessError(f"no process could be started: {e.strerror}") from None
    finally:
        os.close(status_write)
    with contextlib.closing(_Watcher(child, frame(whole), status_read, keep)) as watcher:
        return watcher.wait(seconds, cancelled or threading.Event())


class _Watcher:
    """Gives a supervisor its job and drains its pipes until it says how its process ended, or has to be killed itself."""

    def __init__(self, child: subprocess.Popen[bytes], job: bytes, status: int, keep: int) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        self._child, self._status = child, status
        self._input, self._output = child.stdin.fileno(), child.stdout.fileno()
        self._job = memoryview(job)
        self._ring, self._lines = Ring(keep), bytearray()
        self._facts: dict[str, Any] = {}
        self._selector = selectors.DefaultSelector()
        for fd in (self._output, status):
            os.set_blocking(fd, False)
            with contextlib.suppress(OSError, AttributeError):  # a larger pipe wakes us less often
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE)
            self._selector.register(fd, selectors.EVENT_READ)
        os.set_blocking(self._input, False)  # a job may be larger than the pipe
        self._selector.register(self._input, selectors.EVENT_WRITE)

    def wait(self, seconds: float, cancelled: threading.Event) -> Finished:
        began = time.monotonic()
        stopped: float | None = None
        while self._selector.get_map():
            now = time.monotonic()
            late = now - began > seconds + GRACE + _PATIENCE
            if stopped is None and (cancelled.is_set() or late):
                stopped = now
                self._cut_lifeline()
            if stopped is not None and now - stopped > GRACE + _PATIENCE:
                break
            for key, _ in self._selector.select(_POLL):
                self._write() if key.fd == self._input else self._read(key.fd)
            if "status" in self._facts and self._child.poll() is not None and not self._selector.select(0):
                break  # something that could not be killed may hold the output open
        seconds = time.monotonic() - began
        if why := self._facts.get("failed"):
            raise ProcessError(why)
        output, cut = self._ring.bytes()
        return Finished(
            status=self._facts.get("status"), output=output, cut=cut, seconds=seconds,
            timed_out=bool(self._facts.get("timed_out")), cancelled=cancelled.is_set(),
            confined=self._facts.get("confined", ""), left=self._facts.get("left", 0),
            kept=tuple(self._facts.get("kept", ())), set_aside=tuple(self._facts.get("set_aside", ())),
        )  # fmt: skip

    def _cut_lifeline(self) -> None:
        with contextlib.suppress(KeyError, ValueError):  # the whole job is there, and so it is not watched
            self._selector.unregister(self._input)
        with contextlib.suppress(OSError):
            if self._child.stdin is not None:
                self._child.stdin.close()

    def _write(self) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                self._job = self._job[os.write(self._input, self._job) :]
            except BrokenPipeError:
                self._job = self._job[:0]
        if not self._job:
            self._selector.unregister(self._input)

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, _PIPE)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(fd)
        elif fd == self._output:
            self._ring.add(data)
        else:
            self._lines += data
            *lines, rest = self._lines.split(b"\n")
            self._lines = bytearray(rest)
            for line in lines:
                with contextlib.suppress(ValueError):
                    self._facts.update(json.loads(line))

    def close(self) -> None:
        self._cut_lifeline()
        if self._child.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(GRACE)
        if self._child.poll() is None or "status" not in self._facts:
            # The supervisor hangs, or what it watched killed it: end both sessions from here.
            for group in filter(None, (self._child.pid, self._facts.get("started"))):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)
        bury(self._child)
        self._selector.close()
        os.close(self._status)
