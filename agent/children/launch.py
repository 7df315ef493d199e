"""Starting a Python child process that runs one module of this very installation, and telling in words how it ended.

A child may die of what it is given, so every one has a session of its own and writes its complaints where the parent finds them.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from typing import IO

# Held while a process is started or forked. A fork in the middle of a start would keep the pipes open by which the start is seen
# to be done, and whoever starts would wait as long as the fork lives.
FORKING = threading.Lock()
PACKAGES = str(Path(__file__).resolve().parents[2])  # the folder that holds the packages of this installation
_LOG_BYTES = 1 << 16  # what is kept of the end of a log
END_SECONDS = 5.0  # that a killed process gets to be gone: only a disk that does not answer makes it take longer
_KNOWN = {signal.SIGKILL: "the kernel killed it, probably for want of memory", signal.SIGABRT: "it aborted"}


def bare_program(module: str) -> list[str]:
    """The command line of Python with nothing but the standard library that calls the ``main`` of a module; arguments follow."""
    boot = f"import sys; sys.path.insert(0, {PACKAGES!r}); from {module} import main; main()"
    return [sys.executable, "-I", "-S", "-c", boot]


_HANDED_ON = {
    "PATH", "HOME", "PREFIX", "ANDROID_DATA", "ANDROID_ROOT", "LD_LIBRARY_PATH", "LD_PRELOAD", "LANG", "LANGUAGE", "TMPDIR", "TZ",
    "VIRTUAL_ENV",
}  # fmt: skip
_HANDED_ON_GROUPS = (
    "LC_", "PYTHON", "SPRIG_", "GGML_", "LLAMA_", "OMP_", "GOMP_", "KMP_", "OPENBLAS_", "MALLOC_", "TOKENIZERS_", "RAYON_",
)  # fmt: skip
_SECRET = re.compile("TOKEN$|KEY$|SECRET|PASS|CREDENTIAL")


def plain_environment() -> dict[str, str]:
    """What of this process's environment a child gets that needs no secret: where things lie, languages, numbers of threads."""
    return {
        name: value
        for name, value in os.environ.items()
        if (name in _HANDED_ON or name.startswith(_HANDED_ON_GROUPS)) and not _SECRET.search(name)
    }


def launch(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdin: int = PIPE,
    stdout: int | IO[bytes] = PIPE,
    stderr: int | IO[bytes],
    bare: Sequence[int] | None = None,
) -> Popen[bytes]:
    """Start ``python -m module`` from this installation, whatever the working directory holds.

    Args:
        environment: all that it finds there, apart from the place of this installation.
        stderr: better a file than a pipe: what aborts may leave a helper behind that holds a pipe open.
        bare: start Python with nothing but the standard library, in ``/``, which is quicker, and call the module's ``main``;
            these descriptors stay open for it.

    Raises:
        OSError: no process can be started.
    """
    if bare is not None:
        program, folder = bare_program(module), "/"
    else:
        program, folder = [sys.executable, "-P", "-m", module], None
        path = os.pathsep.join(filter(None, [PACKAGES, os.environ.get("PYTHONPATH", "")]))
        environment = {**environment, "PYTHONPATH": path}
    with FORKING:
        return Popen(
            [*program, *arguments],
            stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=bare or (), env=environment, cwd=folder, start_new_session=True,
        )  # fmt: skip


def stopped(pid: int) -> bool:
    """Whether a process is stopped and cannot answer (proc(5): the state follows the last parenthesis); False without /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except (OSError, IndexError):
        return False


def bury(child: Popen[bytes]) -> None:
    """Collect a child that was killed and close its pipes; one that the kernel cannot end yet is left to it."""
    with contextlib.suppress(TimeoutExpired):
        child.wait(END_SECONDS)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was written and not read is lost
                pipe.close()


def tail(log: IO[bytes]) -> str:
    """The end of what a child has written to a file."""
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), _LOG_BYTES, max(0, size - _LOG_BYTES)).decode("utf-8", "replace")


def cause(status: int) -> str:
    """What killed a child, in words; empty when it ended by itself."""
    if status >= 0:
        return ""
    try:
        number = signal.Signals(-status)
    except ValueError:
        return f"signal {-status}"
    return _KNOWN.get(number, f"it died of {number.name}")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: ``status`` is negative for the signal that killed it, ``log`` is the end of its standard error."""

    status: int
    output: bytes
    log: str
    timed_out: bool


def run_module(
    module: str, arguments: Sequence[str], stdin: bytes, timeout: float, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run a module of this installation in a child process and wait for it, ``timeout`` seconds at most.

    ``stdin`` is what it reads, and small. ``environment`` is set on top of ``plain_environment``.
    """
    env = {**plain_environment(), "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
    with tempfile.TemporaryFile() as log:
        child = launch(module, arguments, env, stderr=log)
        timed_out = False
        try:
            output, _ = child.communicate(stdin, timeout)
        except TimeoutExpired:
            timed_out = True
            output = b""  # of no use
        finally:
            child.kill()  # nothing, when it has ended
            bury(child)
        status = -signal.SIGKILL if child.returncode is None else child.returncode
        return Ended(status, output, tail(log), timed_out)
