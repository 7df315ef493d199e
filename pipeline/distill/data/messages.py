"""Messages and tools as OpenAI's chat API writes them in JSON, read into the agent's own.

Format: the request of "Create chat completion" in OpenAI's API reference. Servers and datasets put a thought under
``reasoning_content``, ``reasoning`` or ``thinking``.
"""

from __future__ import annotations

import json
from typing import Any

from agent.messages import Message, Role, ToolCall, ToolSpec
from pipeline.distill.data.content import LineError

_ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
}  # fmt: skip
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")


def read_messages(value: Any) -> tuple[Message, ...]:
    """Raises LineError for what is no conversation, or has no answer of an assistant to a user."""
    if not isinstance(value, list) or not value:
        raise LineError("messages must be a list that is not empty")
    found = tuple(_message(one, f"message {i}") for i, one in enumerate(value, 1))
    roles = [message.role for message in found]
    if "assistant" not in roles:
        raise LineError("no message is the assistant's, so there is nothing to learn")
    if "user" not in roles or "assistant" not in roles[roles.index("user") :]:
        raise LineError("the assistant answers no user, so there is nothing to learn")
    return found


def _message(value: Any, which: str) -> Message:
    if not isinstance(value, dict):
        raise LineError(f"{which} is a {type(value).__name__} and must be an object")
    role = _ROLES.get(str(value.get("role")))
    if role is None:
        raise LineError(f"{which} has the role {str(value.get('role'))[:40]!r}; known are {', '.join(_ROLES)}")
    text = _content(value.get("content"), which)
    if role == "tool":
        return Message("tool", text, call_id=_word(value, "tool_call_id", which), name=_word(value, "name", which))
    if role != "assistant":
        return Message(role, text)
    thinking = next((_word(value, key, which) for key in _THOUGHTS if value.get(key)), "")
    calls = value.get("tool_calls") or []
    if not isinstance(calls, list):
        raise LineError(f"{which}: tool_calls is a {type(calls).__name__} and must be a list")
    made = tuple(_call(one, which) for one in calls)
    if not text.strip() and not made:
        raise LineError(f"{which}: the assistant says nothing and calls nothing")
    return Message("assistant", text, thinking=thinking, calls=made)


def _content(value: Any, which: str) -> str:
    """A text, or a list of parts that are texts."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [value]
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    if len(texts) < len(parts):
        raise LineError(f"{which}: its content is neither a text nor a list of texts; pictures and sounds are not learned from")
    return "".join(texts)


def _word(value: dict[str, Any], key: str, which: str) -> str:
    found = value.get(key)
    if found is not None and not isinstance(found, str):
        raise LineError(f"{which}: {key} is a {type(found).__name__} and must be a text")
    return found or ""


def _call(value: Any, which: str) -> ToolCall:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise LineError(f"{which}: a tool call has no function with a name")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            raise LineError(f"{which}: the arguments of the call of {function['name'][:40]!r} are no JSON") from None
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise LineError(f"{which}: the arguments of the call of {function['name'][:40]!r} are no object")
    return ToolCall(function["name"], arguments, _word(value, "id", which))


def read_tools(value: Any) -> tuple[ToolSpec, ...]:
    """Raises LineError for what is no list of functions."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise LineError(f"tools is a {type(value).__name__} and must be a list")
    return tuple(_tool(one, f"tool {i}") for i, one in enumerate(value, 1))


def _tool(value: Any, which: str) -> ToolSpec:
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise LineError(f"{which} has no function with a name")
    parameters = function.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise LineError(f"{which}: the parameters of {function['name'][:40]!r} are no JSON Schema")
    parameters = {"type": "object", "properties": {}, **parameters}  # some templates do not bear it when one is missing
    return ToolSpec(function["name"], _word(function, "description", which), parameters)
