"""Tasks, calls and speeds as lines for a terminal."""

from __future__ import annotations

from pipeline.evaluate.figures import Estimate
from pipeline.evaluate.lines_beside import call_lines, speed_lines, task_lines
from pipeline.evaluate.speed import FileSpeed
from pipeline.evaluate.tasks.calls import CallScore
from pipeline.evaluate.tasks.score import TaskScore


def test_what_was_measured_is_a_line_each() -> None:
    first = TaskScore("a.gguf", "arc", "choice", 200, Estimate(0.52, 0.035), Estimate(0.5, 0.035), None)
    second = TaskScore("b\x1b.gguf", "arc", "short", 9, Estimate(0.5, 0.1), None, Estimate(-0.02, 0.01))
    assert task_lines([first, second]) == [
        "a.gguf: arc, 200 multiple choice: 52.0 ± 3.5 % right, 50.0 ± 3.5 % per byte",
        "b␛.gguf: arc, 9 short answers: 50 ± 10 % right; -2.0 ± 1.0 % beside the first",
    ]
    same = TaskScore("c.gguf", "arc", "short", 9, Estimate(1.0, 0.0), None, Estimate(0.0, 0.0))
    assert task_lines([same]) == ["c.gguf: arc, 9 short answers: 100 % right; +0 % beside the first"]
    call = CallScore("a.gguf", False, 30, Estimate(0.7, 0.08), Estimate(0.9), Estimate(1.0), 10, Estimate(0.5), None, 9.0)
    assert call_lines([call]) == [
        "a.gguf: 21 of 30 tool calls right (70.0 ± 8.0 %) without the constraint, no call in 5 of 10 where none is needed"
    ]
    speed = FileSpeed("a.gguf", 2, Estimate(210.0, 3.0), Estimate(47.0, 0.4), 0.21, 198_000_000)
    assert speed_lines([speed]) == [
        "a.gguf: loaded in 0.21 s, reads 210.0 ± 3.0 and writes 47.00 ± 0.40 tokens/s with 2 threads, 198 MB of memory at most"
    ]
