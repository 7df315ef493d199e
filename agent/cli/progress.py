"""Progress of a job on standard error: bars on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Self

from agent.files import human_size
from agent.progress import Progress
from agent.text import display
from agent.text.duration import told_time

if TYPE_CHECKING:
    import rich.progress
    from rich.progress import TaskID

_SECONDS_BETWEEN_LINES = 5.0


@dataclass(slots=True)
class _Stage:
    """A stage as it is shown: when it began, what share was done then, when a line was last said of it."""

    began: float
    first: float
    said: float
    ended: bool = False
    task: TaskID | None = None


class Bars:
    """Shows the progress of a job; ``show`` may be called from any thread. The terminal is left alone until its first call.

    Args:
        says: what a person reads instead of a stage's name.
    """

    def __init__(self, says: Mapping[str, str] | None = None) -> None:
        self._says = says or {}
        self._lock = threading.Lock()
        self._stages: dict[str, _Stage] = {}
        self._bars: rich.progress.Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        with suppress(OSError):
            if self._bars is not None:
                if kind is None:
                    self._end_those_without_length(self._bars)
                self._bars.stop()

    def show(self, step: Progress) -> None:
        with self._lock, suppress(OSError):  # the job outlives the terminal that it was started from
            now = monotonic()
            stage = self._stages.get(step.stage)
            new = stage is None or (stage.ended and not step.ended)  # of several files each begins anew
            if stage is None or new:
                stage = self._stages[step.stage] = _Stage(now, step.share, now, task=stage.task if stage else None)
            if sys.stderr.isatty():
                self._bar(step, stage, new)
            elif not stage.ended and (what := _line(step, stage, new, now)) is not None:
                words = self._says.get(step.stage)
                line = f"{step.stage:<9} {what}" if words is None else f"{words}: {what}" if what else words
                print(line.rstrip(), file=sys.stderr, flush=True)
            stage.ended = step.ended

    def _bar(self, step: Progress, stage: _Stage, new: bool) -> None:
        if self._bars is None:
            self._bars = _bars_on_terminal()
            self._bars.start()
        if stage.task is None:
            self._end_those_without_length(self._bars)
            name = self._says.get(step.stage, step.stage)
            stage.task = self._bars.add_task(name, total=step.total or None, step=step)
        elif new:
            self._bars.reset(stage.task)
        self._bars.update(stage.task, completed=step.done, total=step.total or None, step=step)

    def _end_those_without_length(self, bars: rich.progress.Progress) -> None:
        """Another stage has begun."""
        for task in bars.tasks:
            if task.total is None:
                bars.update(task.id, total=1, completed=1)


def _line(step: Progress, stage: _Stage, new: bool, now: float) -> str | None:
    """What is said of a stage, every few seconds and when it has ended; empty when one begins that nobody knows the length of."""
    amount = _amount(step)
    if step.ended:
        what = amount or "done"
        if not new:
            what += f" in {now - stage.began:.1f} s"
        elif step.unit == "bytes":
            what += ", already there"
    elif not step.total:
        return "" if new else None
    elif now - stage.said < _SECONDS_BETWEEN_LINES:
        return None
    else:
        stage.said = now
        what = f"{step.share:.0%} of {amount}" if amount else f"{step.share:.0%}"
        if step.share > stage.first:
            what += f", {told_time((now - stage.began) * (1 - step.share) / (step.share - stage.first))} left"
    return f"{what}, {display(step.words)}" if step.words else what


def _amount(step: Progress) -> str:
    """All that is to be done, in its unit; nothing where none is counted."""
    return human_size(step.total) if step.unit == "bytes" else f"{step.total:,} {step.unit}" if step.unit else ""


def _so_far(step: Progress) -> str:
    """How much is done of how much."""
    if not step.unit:
        return f"{step.share:.0%}" if step.total else ""
    return f"{human_size(step.done) if step.unit == 'bytes' else f'{step.done:,}'} of {_amount(step)}"


def _pace(step: Progress, speed: float | None) -> str:
    """How fast it is, where something is counted."""
    if not step.unit or not speed:
        return ""
    return f"{human_size(speed)}/s" if step.unit == "bytes" else f"{speed:,.{0 if speed >= 10 else 1}f} {step.unit}/s"


def _bars_on_terminal() -> rich.progress.Progress:
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichBars
    from rich.table import Column
    from rich.text import Text

    class Amount(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(_so_far(task.fields["step"]))

    class Pace(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(_pace(task.fields["step"], task.finished_speed or task.speed))

    class Words(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(display(task.fields["step"].words), no_wrap=True, overflow="ellipsis")

    whole = Column(no_wrap=True)  # where it is narrow, bar and words give way
    return RichBars(
        TextColumn("{task.description:<9}"), BarColumn(bar_width=24), Amount(whole), Pace(whole.copy()),
        TimeRemainingColumn(compact=True), Words(), console=Console(stderr=True),
    )  # fmt: skip
