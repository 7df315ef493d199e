"""What a conversation has read that others wrote.

It is told by the messages alone: so it is right for a branch, a fork, a session that is taken up again, and one that goes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.messages import Message
from agent.text import display
from agent.tools.define import Tool


def sourced(message: Message, tool: Tool | None) -> Message:
    """A tool's result, which knows whether others may have written it. Of a tool that is not there, they may."""
    return replace(message, untrusted=message.untrusted or tool is None or tool.untrusted)


def read_from_others(messages: Sequence[Message]) -> str:
    """What was read last that others wrote, in words; empty when there is nothing."""
    last = next((m for m in reversed(messages) if m.untrusted), None)
    if last is None:
        return ""
    if last.role == "tool":
        return f"what {display(last.name[:64]) or 'a tool'} gave"
    return "what others wrote"
