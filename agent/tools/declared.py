"""Tools that a dictionary declares, in the forms of OpenAI's and Anthropic's interfaces and of MCP."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from agent.messages import ToolSpec
from agent.text import brief
from agent.tools.result import ToolDefinitionError

_SCHEMAS = ("parameters", "input_schema", "inputSchema")
_FORM = '{"type": "function", "function": {"name": ..., "description": ..., "parameters": ...}}'


def read_declaration(given: Mapping[Any, Any]) -> tuple[ToolSpec, Callable[..., Any] | None]:
    """What a dictionary says of a tool, and what runs it, where a callable stands in it under ``function``.

    Raises:
        ToolDefinitionError: it has none of the forms; says what is missing.
    """
    kind = given.get("type", "function")
    if kind not in ("function", "custom"):
        raise ToolDefinitionError(f"a tool of the type {brief(kind)} belongs to a service; only functions can be offered here")
    inner = given.get("function")
    fields = inner if isinstance(inner, Mapping) else given
    name, description = fields.get("name"), fields.get("description")
    if not isinstance(name, str):
        said = "has no name" if name is None else f"has the name {brief(name)}, which is no text"
        raise ToolDefinitionError(f"the tool {brief(dict(given), 120)} {said}; write {_FORM}")
    if not isinstance(description, str | None):
        raise ToolDefinitionError(f"{brief(name)}: the description is {brief(description)} and must be a text")
    if inner is not None and not isinstance(inner, Mapping) and not callable(inner):
        raise ToolDefinitionError(f"{brief(name)}: the function is {brief(inner)}; write {_FORM}, or what to call")
    parameters = next((fields[key] for key in _SCHEMAS if fields.get(key) is not None), {"type": "object", "properties": {}})
    if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
        raise ToolDefinitionError(f"{brief(name)}: the parameters are {brief(parameters)}; write the JSON Schema of an object")
    try:
        schema = json.loads(json.dumps(parameters, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as e:
        raise ToolDefinitionError(f"{brief(name)}: the parameters are no JSON ({brief(str(e))})") from None
    return ToolSpec(name, description or "", schema), inner if callable(inner) else None
