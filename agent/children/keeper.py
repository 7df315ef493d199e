"""The process between the agent and an MCP server: the server speaks to the agent by itself, and all that comes of it is ended.

A server may start processes that leave its session or lose their parent. They become children of this process (prctl(2),
PR_SET_CHILD_SUBREAPER), so that it finds them. It ends when the server does, or when the lifeline is closed, be it because
the agent wants no more of the server or because it died.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from agent.children import sandbox
from agent.children.launch import bare_program
from agent.children.orphan import end_with_parent
from agent.children.supervisor import supervise

GRACE = 1.0  # seconds from SIGTERM to SIGKILL
_NOT_STARTED = 127


def kept(command: Sequence[str], lifeline: int, environment: Mapping[str, str], folder: str | None) -> list[str]:
    """The command line that runs a command under a keeper, which must inherit the descriptor ``lifeline``, a pipe's reading end.

    Raises:
        OSError: there is no such program, or it may not be run.
    """
    program = command[0]
    place = os.path.join(folder or ".", program) if os.sep in program else program  # noqa: PTH118
    path = environment.get("PATH", os.defpath)
    if shutil.which(place, path=path) is None:
        number = errno.EACCES if os.path.exists(place) else errno.ENOENT  # noqa: PTH110
        raise OSError(number, os.strerror(number), program)
    return [*bare_program("agent.children.keeper"), str(lifeline), *command]


def main() -> NoReturn:
    """The arguments are the lifeline's number and the command."""
    lifeline, command = int(sys.argv[1]), sys.argv[2:]
    end_with_parent(signal.SIGCONT)  # killed, it could not end what it keeps; awake, it sees that the lifeline has ended
    sandbox.become_subreaper()
    me = os.getpid()
    server = os.fork()
    if server == 0:
        _serve(command, lifeline, me)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # only the server holds its pipes open
        os.dup2(nowhere, stream)
    status = supervise(server, lifeline, None, GRACE)["status"]
    if status is not None and status < 0:  # end as it did
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):  # of SIGKILL
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(_NOT_STARTED if status is None else abs(status))


def _serve(command: list[str], lifeline: int, keeper: int) -> NoReturn:
    try:
        os.setsid()
        end_with_parent(signal.SIGKILL, keeper)
        os.close(lifeline)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them; programs expect to die of them
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)
    except OSError as e:
        os.write(2, f"{command[0]}: {e.strerror}\n".encode("utf-8", "replace"))
    finally:
        os._exit(_NOT_STARTED)
