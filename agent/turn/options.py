"""What may be said of one run, and what a run is held to when the agent's own settings stand in for what was not said."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from agent.engine.sampling import Sampling
from agent.errors import SprigError
from agent.limits import Limits
from agent.turn.output import Output

MOST_LOGPROBS = 20  # alternatives of each token
_MOST_STOPS, _LONGEST_STOP = 16, 200  # strings; characters of each
_CHOICES = ("auto", "required", "none")


class RunOptions(TypedDict, total=False):
    """The keyword arguments of ``Agent.run`` and ``Agent.stream``; what is left out is as the agent has it.

    Attributes:
        schema: a pydantic model, dataclass, TypedDict or JSON Schema that the answer must be an object of; it comes back as
            ``result.value``.
        tool_choice: "auto", "required" (the first answer must call one), "none", or a tool's name.
        limits: instead of the agent's.
        sampling: over the agent's: temperature, top_k, top_p, min_p, repeat_penalty, seed.
        stop: texts that end the answer, instead of the agent's.
        logprobs: for each token, its log-probability and those of so many likeliest, 0 to 20.
    """

    schema: Any
    tool_choice: str
    limits: Limits | None
    sampling: Mapping[str, Any] | Sampling | None
    stop: str | Sequence[str] | None
    logprobs: int | None


@dataclass(frozen=True, slots=True)
class CheckedOptions:
    """The options of one run, complete."""

    output: Output | None  # what the answer must be an object of; None for words
    choice: str  # "auto", "required", "none" or the name of a tool
    limits: Limits
    sampling: Sampling
    stop: tuple[str, ...]
    logprobs: int | None


def checked(
    options: RunOptions, *, tools: Collection[str], limits: Limits, sampling: Sampling, stop: tuple[str, ...]
) -> CheckedOptions:
    """The options of a run, over what the agent has.

    Raises:
        SprigError: an option has no such meaning, or names a tool that is not among ``tools``.
        TypeError: there is no such option.
    """
    if odd := sorted(set(options) - RunOptions.__optional_keys__):
        raise TypeError(f"a run has no option {odd[0]!r}; there are {', '.join(sorted(RunOptions.__optional_keys__))}")
    schema = options.get("schema")
    own_limits, own_sampling, own_stop = options.get("limits"), options.get("sampling"), options.get("stop")
    return CheckedOptions(
        output=Output.of(schema) if schema is not None else None,
        choice=read_choice(options.get("tool_choice", "auto"), tools),
        limits=limits if own_limits is None else read_limits(own_limits),
        sampling=sampling if own_sampling is None else read_sampling(own_sampling, sampling),
        stop=stop if own_stop is None else read_stop(own_stop),
        logprobs=_logprobs(options.get("logprobs")),
    )


def read_choice(choice: Any, tools: Collection[str]) -> str:
    """Which tools a run may call, or must. SprigError when it is no word for that, and no name of one of ``tools``."""
    if not isinstance(choice, str) or (choice not in _CHOICES and choice not in tools):
        names = ", ".join(sorted(tools)) or "no tools"
        raise SprigError(f"tool_choice is {choice!r}; use auto, required, none or one of {names}")
    if choice not in ("auto", "none") and not tools:
        raise SprigError(f"tool_choice is {choice!r} and this agent has no tools")
    return choice


def _logprobs(count: Any) -> int | None:
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MOST_LOGPROBS):
        raise SprigError(f"logprobs is {count!r}; give the number of alternatives of each token, 0 to {MOST_LOGPROBS}, or None")
    return count


def read_limits(limits: Any) -> Limits:
    """Limits as a script gives them. SprigError when it is anything else."""
    if not isinstance(limits, Limits):
        raise SprigError(f"limits is {limits!r:.80}; use Limits({', '.join(f'{f.name}=...' for f in fields(Limits))})")
    return limits


def read_sampling(chosen: Any, under: Sampling) -> Sampling:
    """A Sampling, or what a script chose of one over another. SprigError when it is neither, or has no such meaning."""
    if isinstance(chosen, Sampling):
        return chosen
    if not isinstance(chosen, Mapping):
        raise SprigError(f"sampling is {chosen!r:.80}; use a dictionary, such as {{'temperature': 0, 'seed': 7}}")
    return under.over(**chosen)


def read_stop(stop: Any) -> tuple[str, ...]:
    """The texts that end an answer; one, several or None for none. SprigError when it is anything else."""
    texts = () if stop is None else (stop,) if isinstance(stop, str) else stop
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) and text for text in texts):
        raise SprigError(f"stop is {stop!r:.80}; use a text, or a list of texts that are not empty")
    if len(texts) > _MOST_STOPS or any(len(text) > _LONGEST_STOP for text in texts):
        raise SprigError(f"stop: at most {_MOST_STOPS} texts of at most {_LONGEST_STOP} characters end an answer")
    return tuple(texts)
