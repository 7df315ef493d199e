"""Questions to several models: shares with standard errors, and differences on the same questions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.errors import SprigError
from pipeline.evaluate.tasks.questions import Exam, read_exam
from pipeline.evaluate.tasks.score import mean, score_tasks
from tests.fixtures.tiny import llama
from tests.pipeline.evaluate.tasks.test_questions import BOOLQ, GSM8K, OWN, PIQA, WINOGRANDE


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("tasks") / "tiny.gguf", llama__context_length=512)


def exam(folder: Path, *lines: object) -> Exam:
    path = folder / "exam.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return read_exam(path)


def test_a_share_has_the_standard_error_of_a_sample() -> None:
    found = mean([True, True, False, True])
    assert found.value == 0.75
    assert found.error == pytest.approx((0.25 * 0.75 * 4 / 3 / 4) ** 0.5)
    assert mean([1]).error is None


@pytest.mark.slow
def test_models_are_compared_on_the_same_questions(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(model.read_bytes())
    progress: list[tuple[int, int]] = []
    wrong = {**PIQA, "label": 1}
    questions = exam(tmp_path, OWN, GSM8K, PIQA, wrong, BOOLQ, WINOGRANDE)
    scores = score_tasks([model, other], questions, threads=1, n_ctx=512, on_progress=lambda *now: progress.append(now))
    assert [(s.model, s.task, s.kind, s.questions) for s in scores] == [
        ("tiny.gguf", "exam", "choice", 5), ("tiny.gguf", "exam", "short", 1),
        ("other.gguf", "exam", "choice", 5), ("other.gguf", "exam", "short", 1),
    ]  # fmt: skip
    choice, short, again, _ = scores
    assert 0.2 <= choice.accuracy.value <= 0.8, "one of the two answers to boil water is right"
    assert choice.difference is None
    assert again.difference is not None
    assert (again.difference.value, again.difference.error) == (0, 0), "the same model"
    assert again.accuracy == choice.accuracy
    assert (short.normalized, short.accuracy.error) == (None, None)
    assert progress == [(n, 12) for n in range(1, 13)]


@pytest.mark.slow
def test_what_is_wrong_with_a_question_is_told_with_its_line(model: Path, tmp_path: Path) -> None:
    long = {**OWN, "question": "a" * 600}
    with pytest.raises(SprigError, match="question of line 2 has"):
        score_tasks([model], exam(tmp_path, OWN, long), threads=1, n_ctx=512)
    with pytest.raises(SprigError, match=r"question of line 2: .*does not fit"):
        score_tasks([model], exam(tmp_path, OWN, {"question": "a" * 600, "answer": "b"}), threads=1, n_ctx=512)
