"""A Python child process that runs one module of this package, gets a little on standard input and may die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PACKAGES = Path(__file__).resolve().parents[2]
_LOG_BYTES = 1 << 16  # what is kept of the end of standard error


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended.

    Attributes:
        status: its exit status; negative, the signal that killed it.
        output: its standard output.
        log: the end of its standard error.
        timed_out: whether it was killed because its time was up.
    """

    status: int
    output: bytes
    log: str
    timed_out: bool

    @property
    def cause(self) -> str:
        """What killed it, in words; empty when it ended by itself."""
        if self.status >= 0:
            return ""
        known = {signal.SIGKILL: "the kernel killed it, probably for want of memory", signal.SIGABRT: "it aborted"}
        try:
            number = signal.Signals(-self.status)
        except ValueError:
            return f"signal {-self.status}"
        return known.get(number, f"it died of {number.name}")


def run_module(
    module: str, arguments: Sequence[str], stdin: bytes, timeout: float, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run ``python -m module`` from this very package, whatever the working directory holds, and wait for it.

    Args:
        module: its dotted name.
        arguments: the command line behind it.
        stdin: what it reads; small.
        timeout: seconds until it is killed.
        environment: set on top of this process's own.
    """
    path = os.pathsep.join(filter(None, [str(_PACKAGES), os.environ.get("PYTHONPATH", "")]))
    env = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
    # A file, not a pipe, takes the log: what aborts may leave a helper behind that holds the pipe open.
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env, start_new_session=True,
        )  # fmt: skip
        timed_out = False
        try:
            output, _ = child.communicate(stdin, timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
            child.kill()
            output, _ = child.communicate()
        except BaseException:
            child.kill()
            child.wait()
            raise
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - _LOG_BYTES))
        return Ended(child.returncode, output, log.read().decode("utf-8", "replace"), timed_out)
