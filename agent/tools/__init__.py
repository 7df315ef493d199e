"""Tools: functions that a model may call, and those that Sprig brings along."""

from agent.tools.builtin import BUILTIN_NAMES, builtin
from agent.tools.define import Tool, as_tool, tool
from agent.tools.result import ToolContext, ToolDefinitionError, ToolError, ToolResult, cap, clean
from agent.tools.schema import Bounds

__all__ = [
    "BUILTIN_NAMES", "Bounds", "Tool", "ToolContext", "ToolDefinitionError", "ToolError", "ToolResult",
    "as_tool", "builtin", "cap", "clean", "tool",
]  # fmt: skip
