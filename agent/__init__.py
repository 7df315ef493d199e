"""The device side of Sprig: what checks, loads and runs a GGUF, and the agent that uses it. Needs nothing of the pipeline.

    from agent import Agent, tool

Every name here is imported when it is first used, so that ``import agent`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agent.errors import EngineError, SprigError

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.approval.policy import Answer, ApprovalRequest, Policy, Rule
    from agent.embedding.embedder import Embedder
    from agent.engine.handle import Engine
    from agent.events import (
        CallForming,
        CallReady,
        CallRefused,
        Compacted,
        Done,
        Event,
        Loading,
        Prefill,
        Problem,
        Result,
        Text,
        Thought,
        ToolDone,
        ToolProgress,
        Usage,
    )
    from agent.limits import Limits
    from agent.messages import Message, ToolCall
    from agent.sessions.store import Session, Store
    from agent.tools.define import Tool, tool
    from agent.tools.mcp.servers import MCPServers
    from agent.tools.result import ToolContext, ToolResult
    from agent.tools.schema import Bounds

_WHERE = {
    "agent.agent": ("Agent",),
    "agent.approval.policy": ("Answer", "ApprovalRequest", "Policy", "Rule"),
    "agent.embedding.embedder": ("Embedder",),
    "agent.engine.handle": ("Engine",),
    "agent.events": (
        "CallForming", "CallReady", "CallRefused", "Compacted", "Done", "Event", "Loading", "Prefill", "Problem", "Result",
        "Text", "Thought", "ToolDone", "ToolProgress", "Usage",
    ),
    "agent.limits": ("Limits",),
    "agent.messages": ("Message", "ToolCall"),
    "agent.sessions.store": ("Session", "Store"),
    "agent.tools.define": ("Tool", "tool"),
    "agent.tools.mcp.servers": ("MCPServers",),
    "agent.tools.schema": ("Bounds",),
    "agent.tools.result": ("ToolContext", "ToolResult"),
}  # fmt: skip
_NAMES = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "Agent", "Answer", "ApprovalRequest", "Bounds", "CallForming", "CallReady", "CallRefused", "Compacted", "Done", "Embedder",
    "Engine", "EngineError", "Event", "Limits", "Loading", "MCPServers", "Message", "Policy", "Prefill", "Problem", "Result",
    "Rule", "Session", "SprigError", "Store", "Text", "Thought", "Tool", "ToolCall", "ToolContext", "ToolDone", "ToolProgress",
    "ToolResult", "Usage", "tool",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'agent' has no attribute {name!r}")
    value = getattr(import_module(_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
