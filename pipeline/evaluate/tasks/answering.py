"""How one model answers questions: multiple choice by likelihood, short answers by what it says when it is asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent import Agent, Engine, Limits
from agent.errors import SprigError
from agent.models.file import read_model
from pipeline.evaluate.tasks.questions import Choice, ChoiceQuestion, ShortQuestion
from pipeline.forward.process import ForwardProcess

MOST_TOKENS = 256  # of a short answer
_CHILD = "pipeline.evaluate.tasks.child"
_PLAIN = "Question: {}\nAnswer:"  # for a model without a chat template
_STOPS = ["\nQuestion:"]
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")
_WHOLE_NUMBER = re.compile(rf"\$?(?:{_NUMBER.pattern})")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


@dataclass(frozen=True, slots=True)
class PickedChoice:
    """The choice with the largest likelihood, and the one with the largest likelihood per byte of its text."""

    likeliest: int
    per_byte: int


def pick(process: ForwardProcess, question: ChoiceQuestion) -> PickedChoice:
    """Take one of the choices of a question.

    Raises:
        SprigError: the question is longer than the process's context.
    """
    likelihoods = [_likelihood(process, choice, question.line) for choice in question.choices]
    per_byte = [
        value / max(1, len(choice.answer.encode("utf-8", "replace")))
        for value, choice in zip(likelihoods, question.choices, strict=True)
    ]
    return PickedChoice(likelihoods.index(max(likelihoods)), per_byte.index(max(per_byte)))


def _likelihood(process: ForwardProcess, choice: Choice, line: int) -> float:
    start = [process.bos] if process.add_bos else []
    context = start + process.tokenize(choice.context)
    ids = start + process.tokenize(choice.context + choice.continuation)
    first = 0
    while first < min(len(context), len(ids) - 1) and context[first] == ids[first]:
        first += 1
    if len(ids) > process.n_ctx:
        raise SprigError(f"the question of line {line} has {len(ids)} tokens, and the context {process.n_ctx}: shorten it")
    value = process.ask("likelihood", ids=ids, first=max(1, first))["value"]
    return float(value)


@contextmanager
def open_choices(model: Path, n_ctx: int, threads: int | None) -> Iterator[ForwardProcess]:
    """The process for ``pick``."""
    with ForwardProcess(model, _CHILD, n_ctx=n_ctx, threads=threads) as process:
        yield process


@contextmanager
def open_speaker(model: Path, n_ctx: int, threads: int | None) -> Iterator[Callable[[str], str]]:
    """A function that gives the model's most likely answer to a question, up to 256 tokens.

    A model with a chat template is asked through it, as the agent would, its thinking switched off where that can be done; one
    without gets "Question: ... Answer:" to go on with.
    """
    with ExitStack() as stack:
        if read_model(model).template:
            engine = stack.enter_context(Engine(model, context=n_ctx, threads=threads, conversations=2, keep_prefix=False))
            limits = Limits(rounds=1, tokens=MOST_TOKENS)
            sampling = {"temperature": 0, "seed": 1}
            yield partial(_say, stack.enter_context(Agent(engine, thinking=False, limits=limits, sampling=sampling)))
        else:
            process = stack.enter_context(ForwardProcess(model, _CHILD, n_ctx=n_ctx, threads=threads))
            yield partial(_go_on, process)


def _say(agent: Agent, question: str) -> str:
    agent.reset()
    result = agent.run(question)
    if result.reason == "error":
        raise SprigError(result.error)
    return result.text


def _go_on(process: ForwardProcess, question: str) -> str:
    ids = ([process.bos] if process.add_bos else []) + process.tokenize(_PLAIN.format(question))
    return str(process.ask("complete", ids=ids, most=MOST_TOKENS, stops=_STOPS)["text"])


def answered(question: ShortQuestion, said: str) -> bool:
    """Whether what a model said is a right answer."""
    if question.pattern is not None:
        return question.pattern.search(said) is not None
    return any(_same(wanted, said) for wanted in question.answers)


def _same(wanted: str, said: str) -> bool:
    if _WHOLE_NUMBER.fullmatch(wanted):
        found = _NUMBER.findall(said)
        return bool(found) and _number(found[-1]) == _number(wanted)
    return _normal(wanted) == _normal(said)


def _number(text: str) -> float:
    return float(text.replace(",", "").lstrip("$"))


def _normal(text: str) -> Sequence[str]:
    """Words without case, punctuation and articles, as the measure of SQuAD has them (Rajpurkar et al., 2016)."""
    letters = "".join(c for c in text.casefold() if c.isalnum() or c.isspace())
    return _ARTICLES.sub(" ", letters).split() or [text.strip()]
