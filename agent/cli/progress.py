"""Progress of a job on standard error: bars on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import math
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, Self

from agent.files import human_size

if TYPE_CHECKING:
    import rich.progress
    from rich.progress import TaskID

_SECONDS_BETWEEN_LINES = 5.0


class Step(Protocol):
    """How far a stage is, in bytes."""

    @property
    def stage(self) -> str: ...
    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...


class Bars:
    """Shows the progress of a job; ``show`` may be called from any thread. The terminal is left alone until its first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began: dict[str, float] = {}
        self._said: dict[str, float] = {}
        self._bars: rich.progress.Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        with suppress(OSError):
            if self._bars is not None:
                self._bars.stop()

    def show(self, step: Step) -> None:
        with self._lock, suppress(OSError):  # the job outlives the terminal that it was started from
            if not sys.stderr.isatty():
                self._line(step)
                return
            if self._bars is None:
                self._bars = _bars_on_terminal()
                self._bars.start()
            if step.stage not in self._tasks:
                self._tasks[step.stage] = self._bars.add_task(step.stage, total=step.total)
            self._bars.update(self._tasks[step.stage], completed=step.done, total=step.total)

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
        print(f"{step.stage:<9} {what}", file=sys.stderr, flush=True)


def _bars_on_terminal() -> rich.progress.Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description:<9}"), BarColumn(bar_width=24), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(compact=True), console=Console(stderr=True),
    )  # fmt: skip
