"""What probing a chat template has found out about it: plain data, kept on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.dialects.base import Dialect, Thinking
from agent.dialects.families import GENERIC

Where = Literal["", "argument", "system", "xml_tools"]
Arguments = Literal["object", "string"]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a template can do, and how it wants to be asked.

    Attributes:
        error: why it does not render a user's message, in one line; None when it does.
        system: a system message is shown; otherwise its text belongs into the first user message.
        tools: where it takes tools from: the variable ``tools`` (argument), a key of the system message (system), the variable
            ``xml_tools``, or nowhere.
        empty_tools: it must be given an empty list, for it does not bear ``none``, when there are no tools.
        calls: an assistant's calls are written.
        results: messages of the role ``tool`` are written.
        arguments: whether it takes a call's arguments as an object or as JSON text.
        parallel: an assistant's message may have several calls.
        null_content: it writes calls only when the content beside them is ``none``.
        alternates: two messages of the same role in a row are refused.
        user_first: a conversation that an assistant begins is refused.
        thinking: the marks of a thought; None when there are none.
        thinking_key: of an assistant's message, where a thought is taken from: ``reasoning_content``, ``reasoning``,
            ``thinking``, ``blocks`` (a list of typed contents); empty when past thoughts are not written.
        thinking_on, thinking_off: options that switch thinking; empty where it cannot be switched so.
        options: variables that change what is written before an answer.
        dialect: how calls are written.
        prefix: the generation prompt.
        marks: by which it tells roles apart, the longest first.
        unprotected: see agent.templates.marks.RoleMarks.
        note: what a user should know of it, in one line; usually empty.
    """

    error: str | None = None
    system: bool = False
    tools: Where = ""
    empty_tools: bool = False
    calls: bool = False
    results: bool = False
    arguments: Arguments = "object"
    parallel: bool = False
    null_content: bool = False
    alternates: bool = False
    user_first: bool = False
    thinking: Thinking | None = None
    thinking_key: str = ""
    thinking_on: Mapping[str, Any] = field(default_factory=dict)
    thinking_off: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    dialect: Dialect = GENERIC
    prefix: str = ""
    marks: tuple[str, ...] = ()
    unprotected: str = ""
    note: str = ""

    @property
    def forgeable(self) -> str:
        """What a person should know, in one line, where a text of others can pass for another role; empty where none can."""
        why = self.unprotected
        return (
            f"the chat template {why}: what a tool, a file or a page says can pass for the words of another role" if why else ""
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Profile:
        """The inverse of ``dataclasses.asdict``. Raises TypeError, KeyError or ValueError for anything else."""
        thinking = data["thinking"]
        made = cls(**{
            **data,
            "dialect": Dialect.from_dict(data["dialect"]),
            "thinking": None if thinking is None else Thinking(**thinking),
            "options": tuple(data["options"]),
            "marks": tuple(data["marks"]),
        })  # fmt: skip
        example = cls()
        for name in cls.__dataclass_fields__:
            value, wanted = getattr(made, name), getattr(example, name)
            if name not in ("error", "thinking") and type(value) is not type(wanted):
                raise TypeError(f"{name} is not a {type(wanted).__name__}")
        return made
