"""One command of `sprig` in a process of its own: what it answers with --json, or why it could not, in one line."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from agent.children.launch import bury, cause, launch, tail
from agent.errors import SprigError

_LOOK_SECONDS = 0.05
_LONGEST = 8192  # bytes of a line of progress


class KilledError(SprigError):
    """A signal ended the command, such as that of the kernel when memory is short."""


@dataclass(frozen=True, slots=True)
class CommandAnswer:
    """How a command ended.

    Attributes:
        result: what it answered with --json.
        memory: the most bytes that it, or a process that it started, held.
        processor: seconds of processor time, those processes among them.
    """

    result: dict[str, Any]
    memory: int = 0
    processor: float = 0.0


def run_command(
    command: str,
    arguments: Sequence[str],
    scratch: Path,
    *,
    alive: Callable[[], object] = lambda: None,
    on_line: Callable[[str], None] = lambda line: None,
    end_seconds: float = 0.0,
) -> CommandAnswer:
    """Run a command to its end.

    Args:
        command: of `sprig`; --json is added.
        scratch: a folder for what it says.
        alive: called some twenty times a second; what it raises ends the command.
        on_line: called with each whole line of its progress.
        end_seconds: that it gets to end by itself when it is called off, as after Ctrl-C.

    Raises:
        KilledError: a signal ended it.
        SprigError: it failed, in its own words.
        OSError: no process can be started.
    """
    with (scratch / "stdout").open("w+b") as out, (scratch / "stderr").open("w+b") as err:
        line = [str(os.getpid()), command, *arguments, "--json"]
        child = launch("pipeline.steps.child", line, os.environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        said = _Lines(err, on_line)
        try:
            while (usage := _ended(child)) is None:
                alive()
                said.read()
                time.sleep(_LOOK_SECONDS)
            said.read()
        except KeyboardInterrupt:
            _interrupt(child, end_seconds)
            raise
        finally:
            child.kill()  # nothing, when it has ended
            bury(child)
        if child.returncode:
            raise (KilledError if child.returncode < 0 else SprigError)(_why(child.returncode, out, err))
        unit = 1 if os.uname().sysname == "Darwin" else 1024  # getrusage(2): kilobytes, on macOS bytes
        return CommandAnswer(_object(out), usage.ru_maxrss * unit, round(usage.ru_utime + usage.ru_stime, 3))


def _ended(child: subprocess.Popen[bytes]) -> resource.struct_rusage | None:
    """What it used, when it has ended."""
    pid, status, usage = os.wait4(child.pid, os.WNOHANG)
    if not pid:
        return None
    child.returncode = os.waitstatus_to_exitcode(status)
    return usage


def _interrupt(child: subprocess.Popen[bytes], seconds: float) -> None:
    """Ctrl-C for the command, which may have something to keep; its own session does not hear that of the terminal."""
    end = time.monotonic() + seconds
    if seconds:
        child.send_signal(signal.SIGINT)
    while time.monotonic() < end and child.poll() is None:
        time.sleep(_LOOK_SECONDS)


class _Lines:
    """The whole lines that a file has got since it was looked at last."""

    def __init__(self, file: IO[bytes], on_line: Callable[[str], None]) -> None:
        self._file, self._on_line, self._at = file, on_line, 0

    def read(self) -> None:
        new, end, _ = os.pread(self._file.fileno(), 1 << 20, self._at).rpartition(b"\n")
        self._at += len(new) + len(end)
        for line in new.splitlines():
            if line.strip():
                self._on_line(line[:_LONGEST].decode("utf-8", "replace").rstrip())


def _object(out: IO[bytes]) -> dict[str, Any]:
    out.seek(0)
    try:
        found = json.loads(out.read())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SprigError("the command did not answer with a JSON object")
    return found


def _why(status: int, out: IO[bytes], err: IO[bytes]) -> str:
    """What a failed command says itself; else the last line of its complaints, or the signal."""
    if status < 0:
        return cause(status) or signal.strsignal(-status) or f"signal {-status}"
    try:
        return str(_object(out)["error"]["message"])
    except (SprigError, KeyError, TypeError):
        lines = tail(err).strip().splitlines()
        return lines[-1].removeprefix("sprig: ") if lines else f"it ended with status {status}"
