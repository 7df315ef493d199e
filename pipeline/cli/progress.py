"""Progress of a job on standard error: bars on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import math
import sys
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from agent.files import human_size

if TYPE_CHECKING:
    from rich.progress import TaskID

_SECONDS_BETWEEN_LINES = 5.0


class Step(Protocol):
    """Progress of one stage in bytes, and the file or tensor that the job works on."""

    @property
    def stage(self) -> str: ...
    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def item(self) -> str: ...


class Bars:
    """Shows the steps of a job; ``show`` may be called from any thread."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._began: dict[str, float] = {}
        self._said: dict[str, float] = {}
        self._bars: _Terminal | None = None

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._bars = _Terminal(self._stream)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):
            if self._bars:
                self._bars.stop()

    def show(self, step: Step) -> None:
        with self._lock, suppress(OSError):  # the job outlives the terminal that it was started from
            if self._bars:
                self._bars.show(step)
            else:
                self._line(step)

    def _line(self, step: Step) -> None:
        """A line every few seconds, and one when the stage has ended."""
        now = time.monotonic()
        first = step.stage not in self._began
        began = self._began.setdefault(step.stage, now)
        last = self._said.setdefault(step.stage, now)
        if step.done >= step.total:
            if last == math.inf:
                return
            self._said[step.stage] = math.inf
            what = f"{human_size(step.total)}, already there" if first else f"{human_size(step.total)} in {now - began:.1f} s"
        elif now - last >= _SECONDS_BETWEEN_LINES:
            self._said[step.stage] = now
            what = f"{step.done / step.total:.0%} of {human_size(step.total)}"
        else:
            return
        print(f"{step.stage:<9} {what}", file=self._stream, flush=True)


class _Terminal:
    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

        self._progress = Progress(
            TextColumn("{task.description:<9}"), BarColumn(bar_width=24), DownloadColumn(), TransferSpeedColumn(),
            TimeRemainingColumn(compact=True), console=Console(file=stream),
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def show(self, step: Step) -> None:
        task = self._tasks.get(step.stage)
        if task is None:
            task = self._tasks[step.stage] = self._progress.add_task(step.stage, total=step.total)
        self._progress.update(task, completed=step.done, total=step.total)

    def stop(self) -> None:
        self._progress.stop()
