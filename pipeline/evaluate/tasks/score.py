"""What share of a file's questions models answer right, each beside the first model on the very same questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from agent.errors import SprigError
from pipeline.evaluate.figures import Estimate
from pipeline.evaluate.tasks.answering import answered, open_choices, open_speaker, pick
from pipeline.evaluate.tasks.questions import ChoiceQuestion, Exam, ShortQuestion
from pipeline.forward.measures import standard_error

N_CTX = 2048  # tokens of a question with its answer at most
OnProgress = Callable[[int, int], None]
Kind = Literal["choice", "short"]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TaskScore:
    """How a model did on the questions of one kind of a file.

    Attributes:
        model: name of the file.
        task: name of the questions' file, without its ending.
        kind: "choice" (by likelihood) or "short" (by what the model says).
        questions: how many.
        accuracy: share that is right.
        normalized: share that is right where the likelihood counts per byte of an answer; None for short answers.
        difference: ``accuracy`` less the first model's, with the standard error of the pairs; None for the first model.
    """

    model: str
    task: str
    kind: Kind
    questions: int
    accuracy: Estimate
    normalized: Estimate | None
    difference: Estimate | None


def score_tasks(
    models: Sequence[Path],
    exam: Exam,
    *,
    threads: int | None = None,
    n_ctx: int = N_CTX,
    on_progress: OnProgress | None = None,
) -> list[TaskScore]:
    """Ask all models the questions of a file.

    Args:
        models: GGUF files; the others are compared with the first.
        exam: the questions.
        threads: of the computation.
        n_ctx: tokens of a question with its answer at most.
        on_progress: called with how many of how many answers there are, those of all models together.

    Returns:
        For each model one score for the multiple-choice questions and one for the short answers, as far as the file has them.

    Raises:
        SprigError: a question is too long, or a model does not run.
    """
    choices = [q for q in exam.questions if isinstance(q, ChoiceQuestion)]
    shorts = [q for q in exam.questions if isinstance(q, ShortQuestion)]
    scores: list[TaskScore] = []
    firsts: dict[Kind, Bools] = {}
    count = counter(len(models) * len(exam.questions), on_progress)
    for model in models:
        ask = _Asking(model, n_ctx, threads, count)
        found: dict[Kind, Bools] = {}
        if choices:
            found["choice"] = ask.choose(choices)
        if shorts:
            found["short"] = ask.say(shorts)
        for kind, right in found.items():
            difference = mean(right[0].astype(np.int8) - firsts[kind]) if kind in firsts else None
            firsts.setdefault(kind, right[0])
            normalized = mean(right[1]) if kind == "choice" else None
            n = right.shape[1]
            scores.append(TaskScore(model.name, exam.name, kind, n, mean(right[0]), normalized, difference))
    return scores


def mean(values: npt.ArrayLike) -> Estimate:
    """The mean, and its standard error from the spread of the values; they are independent, and one alone has no error."""
    array = np.asarray(values, np.float64)
    return Estimate(float(array.mean()), standard_error(array) if len(array) > 1 else None)


def counter(total: int, on_progress: OnProgress | None) -> Callable[[], None]:
    """What is called after each of so many answers."""
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    return count


@dataclass(frozen=True, slots=True)
class _Asking:
    """One model that is asked all questions."""

    model: Path
    n_ctx: int
    threads: int | None
    count: Callable[[], None]

    def choose(self, questions: Sequence[ChoiceQuestion]) -> Bools:
        """[2, questions]: whether the likeliest choice is right, and the likeliest per byte."""
        right = np.zeros((2, len(questions)), np.bool_)
        with open_choices(self.model, self.n_ctx, self.threads) as process:
            for i, question in enumerate(questions):
                picked = pick(process, question)
                right[:, i] = picked.likeliest == question.right, picked.per_byte == question.right
                self.count()
        return right

    def say(self, questions: Sequence[ShortQuestion]) -> Bools:
        """[1, questions]: whether what the model says is right."""
        right = np.zeros((1, len(questions)), np.bool_)
        with open_speaker(self.model, self.n_ctx, self.threads) as ask:
            for i, question in enumerate(questions):
                try:
                    right[0, i] = answered(question, ask(question.question))
                except SprigError as e:
                    raise SprigError(f"the question of line {question.line}: {e}") from None
                self.count()
        return right
