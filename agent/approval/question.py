"""The question whether a tool may run, in words: the same on the screen, in the plain chat and in `sprig ask`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agent.approval.offers import allows, meaning
from agent.approval.policy import ApprovalRequest, Rule, describe
from agent.messages import ToolCall
from agent.text import display

AnswerName = Literal["once", "session", "always", "no", "word"]

KEYS: dict[str, AnswerName] = {
    "1": "once", "y": "once", "2": "session", "s": "session", "3": "always", "a": "always", "4": "no", "n": "no",
    "5": "word", "w": "word",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class AnswerChoice:
    """One answer.

    Attributes:
        name: what it means.
        words: what it says of itself.
        possible: whether it would do anything here.
    """

    name: AnswerName
    words: str
    possible: bool = True

    @property
    def keys(self) -> tuple[str, ...]:
        """That give it: its number, its letter."""
        return tuple(key for key, name in KEYS.items() if name == self.name)


def choices(request: ApprovalRequest, rule: Rule | None) -> tuple[AnswerChoice, ...]:
    """The answers; ``rule`` is what "always" would offer, None when no rule can cover the call."""
    again = meaning(request.always, request.tool).removesuffix(" of this tool")
    holds = allows(request.always, request.tool, request.call)
    # A rule said yes and was overruled: another one would change nothing.
    why = request.decision.reason
    useless = bool(why) and why in (request.tool.unconfined, request.tool.doubt())
    return (
        AnswerChoice("once", "yes, once"),
        AnswerChoice("session", f"this session: {again}", holds and not useless),
        AnswerChoice("always", "always, for a pattern", rule is not None and not useless),
        AnswerChoice("no", "no"),
        AnswerChoice("word", "no, with a word to the model"),
    )


def title(request: ApprovalRequest) -> str:
    """Above the question."""
    name = request.tool.name
    if request.tool.origin == "mcp":
        return f"May this run? It is of the MCP server {display(name.partition('__')[0])}"
    return "May this run?"


def asked_about(request: ApprovalRequest) -> str:
    """What would run, safe to print: whole, or with what it changes in a few words where the preview shows the rest."""
    if request.preview is None:
        return request.decision.summary
    tool, call = request.tool, request.call
    named = {name: value for name, value in call.arguments.items() if name in tool.subjects}
    return f"{describe(tool, ToolCall(call.name, named, call.id))[0]}\n{display(request.preview.change)}"


def reasons(request: ApprovalRequest) -> list[str]:
    """Why it is asked, a line each."""
    tool, why = request.tool, request.decision.reason
    return [display(line) for line in dict.fromkeys((why, tool.unconfined)) if line]


def middle_cut(count: int, most: int) -> tuple[int, int]:
    """Which of so many lines are left out where only ``most`` have room: from the first to before the last, in the middle."""
    if count <= most:
        return count, count
    return most * 2 // 3, count - (most - most * 2 // 3)


def diff_lines(diff: str, most: int | None = None) -> Sequence[str]:
    """The lines of a preview's diff without its heads, safe to print; ``most`` of them, and a line that says what is missing."""
    lines = [display(line, lines=True) for line in diff.removesuffix("\n").split("\n")[2:]] if diff else []
    start, end = middle_cut(len(lines), most if most is not None else len(lines))
    if start == end:
        return lines
    return [*lines[:start], f"[... {end - start:,} lines of the change are left out ...]", *lines[end:]]
