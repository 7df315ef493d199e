"""What holds a process that computes with a model: it is C++ that reads a file from anywhere.

It keeps the right to read programs, the model and its adapters, and to write the folder of kept prefixes; it opens no socket,
runs no program, gains no privilege, and leaves the modes and owners of files, other processes and the machine alone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from agent.children import sandbox
from agent.children.launch import PACKAGES
from agent.children.rules import FREE, Rules
from agent.children.serve import Served


def confine_to(files: Iterable[str], folders: Iterable[str] = ()) -> str:
    """Confine this process, for good, as far as the kernel can; for a process of one thread, before it loads a model.

    Args:
        files: what it reads: the model, adapters.
        folders: what it writes below.

    Returns:
        What holds it, as ``sandbox.confine`` says it.
    """
    python = [path for path in sys.path if os.path.isdir(path)]  # noqa: PTH112  (pathlib would take longer)
    read = (*sandbox.system_paths(), PACKAGES, *python, os.path.realpath("/proc/self"), *files)
    rules = Rules(read, tuple(folders), limits=FREE)  # a model takes what it takes
    return sandbox.confine_itself(rules, reads_all=True)


class ModelWorker(Served):
    """What holds a model and answers for it: how it prepares to load, and how a request fails."""

    failures: ClassVar[tuple[type[Exception], ...]]  # that say in one line what is wrong
    progress_seconds: ClassVar[float] = 1.0  # between two messages while the model is loaded

    def ready_to_load(
        self, message: dict[str, Any], read: Iterable[str] = (), written: Iterable[str] = ()
    ) -> Callable[[float], None]:
        """Take the cores and confine this process, as the message ``load`` says.

        Args:
            read: files besides the model that this process needs.
            written: folders that it writes below.

        Returns:
            What tells the parent how much of the model is loaded, 0 to 1.
        """
        told = 0.0

        def tell(part: float) -> None:
            nonlocal told
            if time.monotonic() - told > self.progress_seconds:
                told = time.monotonic()
                self.wire.send({"id": message["id"], "event": "progress", "part": part})

        if message["cores"]:
            with contextlib.suppress(OSError, AttributeError):  # the system may have taken some away meanwhile
                os.sched_setaffinity(0, message["cores"])  # the threads inherit it
        confine_to([message["path"], *read], written)
        return tell

    @contextlib.contextmanager
    def answering(self, message: dict[str, Any]) -> Iterator[None]:
        """What goes wrong inside is told to the parent, and the worker goes on."""
        number = message.get("id", 0)
        try:
            yield
        except self.failures as e:
            self.wire.send({"id": number, "event": "failed", "why": str(e)})
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            self.wire.send({"id": number, "event": "failed", "why": f"{message.get('op')}: {type(e).__name__}: {e}"})

    def unknown(self, message: dict[str, Any]) -> None:
        """Tell the parent that it asked for what there is not."""
        self.wire.send({"id": message.get("id", 0), "event": "failed", "why": f"the worker knows no {message.get('op')!r}"})
