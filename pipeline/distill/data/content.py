"""What is learned from, before it is tokens: conversations and passages of text."""

from __future__ import annotations

from dataclasses import dataclass

from agent.messages import Message, ToolSpec


class LineError(Exception):
    """A line of a file cannot be learned from; the message says why."""


@dataclass(frozen=True, slots=True)
class ChatTranscript:
    """A conversation, and the tools that its assistant may call."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Passage:
    """A text, of which only what stands behind the prompt counts; ``ends``: the token that ends a text follows."""

    prompt: str
    text: str
    ends: bool
