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
    from agent.async_agent import AsyncAgent
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
        TokenLogprob,
        ToolDone,
        ToolProgress,
        ToolsChanged,
        Usage,
    )
    from agent.limits import Limits
    from agent.messages import Message, ToolCall
    from agent.sessions.store import Session, Store
    from agent.tools.define import Tool, tool
    from agent.tools.mcp.servers import MCPServers
    from agent.tools.result import ToolContext, ToolError, ToolResult
    from agent.tools.schema import Bounds
    from agent.turn.hooks import HookError
    from agent.turn.options import RunOptions

_WHERE = {
    "agent.agent": ("Agent",),
    "agent.async_agent": ("AsyncAgent",),
    "agent.approval.policy": ("Answer", "ApprovalRequest", "Policy", "Rule"),
    "agent.embedding.embedder": ("Embedder",),
    "agent.engine.handle": ("Engine",),
    "agent.events": (
        "CallForming", "CallReady", "CallRefused", "Compacted", "Done", "Event", "Loading", "Prefill", "Problem", "Result",
        "Text", "Thought", "TokenLogprob", "ToolDone", "ToolProgress", "ToolsChanged", "Usage",
    ),
    "agent.limits": ("Limits",),
    "agent.messages": ("Message", "ToolCall"),
    "agent.sessions.store": ("Session", "Store"),
    "agent.tools.define": ("Tool", "tool"),
    "agent.tools.mcp.servers": ("MCPServers",),
    "agent.tools.schema": ("Bounds",),
    "agent.tools.result": ("ToolContext", "ToolError", "ToolResult"),
    "agent.turn.hooks": ("HookError",),
    "agent.turn.options": ("RunOptions",),
}  # fmt: skip
_NAMES = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "Agent", "Answer", "ApprovalRequest", "AsyncAgent", "Bounds", "CallForming", "CallReady", "CallRefused", "Compacted",
    "Done", "Embedder", "Engine", "EngineError", "Event", "HookError", "Limits", "Loading", "MCPServers", "Message", "Policy",
    "Prefill", "Problem", "Result", "Rule", "RunOptions", "Session", "SprigError", "Store", "Text", "Thought", "TokenLogprob",
    "Tool", "ToolCall", "ToolContext", "ToolDone", "ToolError", "ToolProgress", "ToolResult", "ToolsChanged", "Usage", "tool",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'agent' has no attribute {name!r}")
    from logging import NullHandler, getLogger

    logger = getLogger("agent")  # here, and not in children, which pay for every import
    if not logger.handlers:
        logger.addHandler(NullHandler())  # a library says nothing by itself
    value = getattr(import_module(_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
