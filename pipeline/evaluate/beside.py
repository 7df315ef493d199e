"""What is measured of files beside their divergences: questions, tool calls, speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.progress import OnProgress, Progress
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
    on_progress: OnProgress = lambda step: None,
) -> Beside:
    """Measure what is wanted, one kind after the other.

    Args:
        exams: questions to ask.
        calls: ask for tool calls too.
        speed: measure speed and memory too, when nothing else runs.
        on_progress: told of the stages "questions" and "calls".

    Raises:
        SprigError: a question is too long, or a model does not run.
    """

    def answered(done: int, total: int) -> None:
        on_progress(Progress("questions", done, total, "answers"))

    def called(done: int, total: int) -> None:
        on_progress(Progress("calls", done, total, "tool calls"))

    scores = [one for exam in exams for one in score_tasks(models, exam, threads=threads, on_progress=answered)]
    tools = score_calls(models, threads=threads, on_progress=called) if calls else []
    speeds = [measure_speed(model, threads=threads) for model in models] if speed else []
    return Beside(tuple(scores), tuple(tools), tuple(speeds))
