"""What was measured beside the divergences, told on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from agent.files import human_size
from agent.text import display
from pipeline.evaluate.figures import Estimate
from pipeline.evaluate.lines import told
from pipeline.evaluate.speed import FileSpeed
from pipeline.evaluate.tasks.calls import CallScore
from pipeline.evaluate.tasks.score import TaskScore


def share(estimate: Estimate, *, sign: bool = False) -> str:
    """A share or a difference of shares in percent; where all questions went the same way, an error says nothing."""
    return told(estimate if estimate.error else Estimate(estimate.value), 100, " %", sign=sign)


def task_lines(scores: Sequence[TaskScore]) -> list[str]:
    """A line for each model and kind of questions."""
    lines = []
    for one in scores:
        kind = "multiple choice" if one.kind == "choice" else "short answers"
        more = f", {share(one.normalized)} per byte" if one.normalized else ""
        beside = f"; {share(one.difference, sign=True)} beside the first" if one.difference else ""
        what = f"{display(one.task)}, {one.questions} {kind}: {share(one.accuracy)} right{more}{beside}"
        lines.append(f"{display(one.model)}: {what}")
    return lines


def call_lines(scores: Sequence[CallScore]) -> list[str]:
    """A line for each model and setting of the constraint."""
    lines = []
    for one in scores:
        setting = "with the constraint" if one.constrain else "without the constraint"
        right = f"{round(one.right.value * one.wishes)} of {one.wishes} tool calls right ({share(one.right)})"
        restrained = f"no call in {round(one.restrained.value * one.others)} of {one.others} where none is needed"
        beside = f"; {share(one.difference, sign=True)} beside the first" if one.difference else ""
        lines.append(f"{display(one.model)}: {right} {setting}, {restrained}{beside}")
    return lines


def speed_lines(speeds: Sequence[FileSpeed]) -> list[str]:
    """A line for each model."""
    return [
        f"{display(one.model)}: loaded in {one.load_seconds:.2f} s, reads {told(one.prefill)} and writes {told(one.decode)} "
        f"tokens/s with {one.threads} thread{'s' if one.threads > 1 else ''}, {human_size(one.peak_memory)} of memory at most"
        for one in speeds
    ]
