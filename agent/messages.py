"""What a conversation is made of: plain data that every part of the agent passes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What a model is told of a tool.

    Attributes:
        name: letters, digits, ``_`` and ``-``, at most 64.
        description: what it does, for the model.
        parameters: JSON Schema of an object, a property for each argument.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})

    def as_openai(self) -> dict[str, Any]:
        """The form that chat templates are written for."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to have a tool run.

    Attributes:
        name: of the tool.
        arguments: by name, as JSON values.
        id: nine letters and digits, unique within a conversation; empty until the agent gives it one.
    """

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: who speaks.
        text: what is said, or what the tool gave back.
        thinking: what an assistant thought before it spoke.
        calls: what an assistant wants to have run.
        call_id: of a tool message, the call that it answers.
        name: of a tool message, the tool.
        images: paths of pictures that belong to the text.
        untrusted: others wrote it, or it is what is left of what others wrote.
    """

    role: Role
    text: str = ""
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    name: str = ""
    images: tuple[str, ...] = ()
    untrusted: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a prompt.

    Attributes:
        text: its characters.
        trusted: written by the template or by Sprig; only then may a control token be read in it.
    """

    text: str
    trusted: bool
