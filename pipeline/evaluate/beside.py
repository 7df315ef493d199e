"""What is measured of files beside their divergences: questions, tool calls, speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.evaluate.lines_beside import call_lines, speed_lines, task_lines
from pipeline.evaluate.speed import FileSpeed, measure_speed
from pipeline.evaluate.tasks.calls import CallScore, score_calls
from pipeline.evaluate.tasks.questions import Exam
from pipeline.evaluate.tasks.score import TaskScore, score_tasks


@dataclass(frozen=True, slots=True)
class Beside:
    """Scores of each kind, in the order of the files; empty where a kind was not wanted."""

    tasks: tuple[TaskScore, ...]
    calls: tuple[CallScore, ...]
    speeds: tuple[FileSpeed, ...]

    def lines(self) -> list[str]:
        """For a terminal, each kind after an empty line."""
        kinds = (task_lines(self.tasks), call_lines(self.calls), speed_lines(self.speeds))
        return [line for some in kinds if some for line in ("", *some)]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``: the kinds that were wanted."""
        return {name: scores for name, scores in asdict(self).items() if scores}


def measure_beside(
    models: Sequence[Path],
    *,
    exams: Sequence[Exam] = (),
    calls: bool = False,
    speed: bool = False,
    threads: int | None = None,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Beside:
    """Measure what is wanted, one kind after the other.

    Args:
        exams: questions to ask.
        calls: ask for tool calls too.
        speed: measure speed and memory too, when nothing else runs.
        on_progress: called with a word for what is counted, how many are done and how many there are.

    Raises:
        SprigError: a question is too long, or a model does not run.
    """
    answers = partial(on_progress, "answers")
    scores = [one for exam in exams for one in score_tasks(models, exam, threads=threads, on_progress=answers)]
    called = score_calls(models, threads=threads, on_progress=partial(on_progress, "tool calls")) if calls else []
    speeds = [measure_speed(model, threads=threads) for model in models] if speed else []
    return Beside(tuple(scores), tuple(called), tuple(speeds))
