"""How the next answer begins, what it is held to, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.dialects.base import Dialect
from agent.dialects.parser import StreamParser
from agent.messages import Segment
from agent.turn.parts import Parts

_NO_CALLS = Dialect("words", "json", trigger="")


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """A plan for one answer.

    Attributes:
        lead: tokens with which it begins, before the model is asked.
        constraint: as Engine.generate takes it.
        parser: reads its text.
    """

    lead: list[int]
    constraint: Mapping[str, Any] | None
    parser: StreamParser


def plan_answer(parts: Parts, choice: str, *, form: bool) -> AnswerPlan:
    """The plan for an answer.

    Args:
        parts: of the run.
        choice: "auto", "required", "none" or the name of a tool.
        form: the answer is the object that ``parts.output`` describes.
    """
    transcript, profile = parts.transcript, parts.template.profile
    dialect, thinking = profile.dialect, profile.thinking
    started = parts.template.started(transcript.options)
    # Some generation prompts have begun a call already, like functionary's ``>>>``.
    prefix = dialect.call_open if dialect.call_open and profile.prefix.endswith(dialect.call_open) else ""
    if form:  # an object may hold the mark of a call, or begin like one; here nothing is a call
        lead = _words_begin(parts, dialect) if prefix else []
        parser = StreamParser(_NO_CALLS, {}, thinking=thinking, started=started)
        return AnswerPlan(lead, _constraint(parts, choice, form=True, started=started, prefix=""), parser)
    parser = StreamParser(
        dialect, transcript.by_name, thinking=thinking, started=started, prefix=prefix, bare_calls=choice != "none"
    )  # fmt: skip
    return AnswerPlan([], _constraint(parts, choice, form=False, started=started, prefix=prefix), parser)


def _words_begin(parts: Parts, dialect: Dialect) -> list[int]:
    """Where the prompt has begun a call: the name that makes words of it."""
    text = [Segment(dialect.text_name + dialect.after_name, trusted=True)] if dialect.text_name else []
    return [i for ids in parts.engine.tokenize(text, after=parts.transcript.tokens[-1]) for i in ids]


def _constraint(parts: Parts, choice: str, *, form: bool, started: bool, prefix: str) -> Mapping[str, Any] | None:
    profile = parts.template.profile
    offered = () if form else parts.transcript.tools
    schema = parts.output.schema if form and parts.output is not None else None
    enforce = schema is not None or (parts.constrain and bool(offered))
    if not enforce and parts.max_thinking is None:
        return None
    return {
        "dialect": profile.dialect.to_dict(),
        "tools": [{"name": t.name, "parameters": dict(t.parameters)} for t in offered],
        "choice": choice if offered else "auto",
        "parallel": profile.dialect.parallel,
        "thinking": None if profile.thinking is None else {"open": profile.thinking.open, "close": profile.thinking.close},
        "started": started,
        "prefix": prefix,
        "schema": schema,
        "enforce": enforce,
    }
