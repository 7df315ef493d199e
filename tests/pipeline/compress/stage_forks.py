"""Stages as forks of the process that runs `sprig compress`, which has loaded all that they want: torch alone takes seconds."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import IO

from agent.children.orphan import end_with_parent


class StageFork:
    """A fork that becomes a module, with what ``run_command`` asks of a process that was started."""

    stdin = stdout = stderr = None

    def __init__(self, module: str, line: Sequence[str], stdout: IO[bytes], stderr: IO[bytes]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            becomes(lambda: _become(module, line, stdout, stderr))

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.01)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def launcher(killed: Callable[[], object], seconds: float) -> Callable[..., StageFork]:
    """``launch`` for ``run_command``; where ``killed`` says so, this process is killed at work, ``seconds`` later at most."""

    def launch(
        module: str, line: Sequence[str], environment: Mapping[str, str], *, stdin: int, stdout: IO[bytes], stderr: IO[bytes]
    ) -> StageFork:
        child = StageFork(module, line, stdout, stderr)
        if killed():
            child.wait(seconds)
            os.kill(os.getpid(), signal.SIGKILL)
        return child

    return launch


def becomes(work: Callable[[], object]) -> None:
    """Do it in this process, which is a fork, and end as `sprig` does."""
    status = 1
    try:
        work()
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else int(e.code is not None)
    finally:
        os._exit(status)


def _become(module: str, line: Sequence[str], stdout: IO[bytes], stderr: IO[bytes]) -> None:
    end_with_parent(signal.SIGKILL, int(line[0]))
    os.setsid()
    for number, file in enumerate((stdout, stderr), 1):
        os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    sys.argv = [module, *line]
    try:
        import_module(module).main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
