"""What share of tool calls models make right, with the constraint that holds a call to its tool's schema and without.

The wishes are those of ``pipeline.evaluate.tasks.call_tasks``, asked as the agent asks; each token is the most likely one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from agent import Agent, CallReady, CallRefused, Engine, Limits, ToolCall
from pipeline.evaluate.figures import Estimate
from pipeline.evaluate.tasks.call_tasks import CALLS, NONE, TOOLS, CallTask, right
from pipeline.evaluate.tasks.score import OnProgress, counter, mean

TASKS = (*CALLS[::2], *NONE[::2])  # each tool in them five times, and ten wishes without a tool
MOST_TOKENS = 80  # of an answer
_CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class CallAnswer:
    """What a model did about a wish: its first call, or None, and whether that was refused as invalid."""

    task: CallTask
    call: ToolCall | None
    refused: bool

    @property
    def right(self) -> bool:
        """The call that was wanted; where none was, that there is none."""
        if self.call is None or self.task.tool is None:
            return self.call is None and self.task.tool is None
        return right(self.task, self.call.name, self.call.arguments)


@dataclass(frozen=True, slots=True)
class CallScore:
    """How a model called tools.

    Attributes:
        model: name of the file.
        constrain: whether calls were held to their tools' schemas.
        wishes: how many one call fulfils.
        right: share of these with the right tool and the right arguments.
        tool: with the right tool.
        valid: with a call that the tool's schema allows.
        others: how many wishes need no call.
        restrained: share of these without a call.
        difference: ``right`` less the first model's under the same constraint, with the standard error of the pairs; None for
            the first model.
        seconds: for all wishes.
    """

    model: str
    constrain: bool
    wishes: int
    right: Estimate
    tool: Estimate
    valid: Estimate
    others: int
    restrained: Estimate
    difference: Estimate | None
    seconds: float


def answer_wishes(
    engine: Engine, tasks: Sequence[CallTask], *, constrain: bool, choice: Literal["auto", "required"] = "auto",
    on_answer: Callable[[], None] = lambda: None,
) -> list[CallAnswer]:  # fmt: skip
    """One answer to each wish, as if it were the first."""
    answers = []
    limits = Limits(rounds=1, tokens=MOST_TOKENS)
    with Agent(engine, tools=TOOLS, constrain=constrain, limits=limits, sampling={"temperature": 0, "seed": 1}) as agent:
        for task in tasks:
            agent.reset()  # what all wishes have in front of them is kept by the engine
            call, refused = None, False
            for event in agent.stream(task.wish, tool_choice=choice):
                if isinstance(event, CallReady) and call is None:
                    call = event.call
                elif isinstance(event, CallRefused) and call is not None:
                    refused = True
            answers.append(CallAnswer(task, call, refused))
            on_answer()
    return answers


def score_calls(
    models: Sequence[Path],
    *,
    threads: int | None = None,
    tasks: Sequence[CallTask] = TASKS,
    on_progress: OnProgress | None = None,
) -> list[CallScore]:
    """Ask all models for tool calls, with the constraint and without.

    Args:
        models: GGUF files; the others are compared with the first.
        threads: of the computation.
        tasks: by default thirty wishes that one call fulfils, and ten that need none.
        on_progress: called with how many of how many answers there are, those of all models together.

    Raises:
        SprigError: a model does not run.
    """
    scores: list[CallScore] = []
    firsts: dict[bool, list[bool]] = {}
    count = counter(2 * len(tasks) * len(models), on_progress)
    for model in models:
        with Engine(model, context=_CONTEXT, conversations=2, threads=threads) as engine:
            for constrain in (True, False):
                started = time.monotonic()
                answers = answer_wishes(engine, tasks, constrain=constrain, on_answer=count)
                seconds = time.monotonic() - started
                fits = [one.right for one in answers if one.task.tool is not None]
                difference = mean(np.subtract(fits, firsts[constrain], dtype=np.float64)) if constrain in firsts else None
                firsts.setdefault(constrain, fits)
                scores.append(_score(model.name, constrain, answers, difference, seconds))
    return scores


def _score(model: str, constrain: bool, answers: Sequence[CallAnswer], difference: Estimate | None, seconds: float) -> CallScore:
    wishes = [one for one in answers if one.task.tool is not None]
    others = [one for one in answers if one.task.tool is None]
    return CallScore(
        model=model,
        constrain=constrain,
        wishes=len(wishes),
        right=mean([one.right for one in wishes]),
        tool=mean([one.call is not None and one.call.name == one.task.tool for one in wishes]),
        valid=mean([one.call is not None and not one.refused for one in wishes]),
        others=len(others),
        restrained=mean([one.right for one in others]),
        difference=difference,
        seconds=seconds,
    )
