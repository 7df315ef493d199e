"""Conversations with tools, generated: definitions in JSON Schema, requests, calls, results and answers.

The tools and sentences lie in held_out/tools.toml; the numbers and words in them come from a seed.
"""

from __future__ import annotations

import json
import tomllib
from importlib.resources import files
from random import Random
from typing import Any

from pipeline.text.configs import between, pick

_TOOLS_PER_TALK = 2


def tool_talks(seed: int) -> list[str]:
    """Each tool is defined in one talk and called twice there. The same for a seed on every machine."""
    text = (files("pipeline.text") / "held_out" / "tools.toml").read_text(encoding="utf-8")
    tools = tomllib.loads(text)["tool"]
    random = Random(seed)
    return [_talk(random, tools[i : i + _TOOLS_PER_TALK]) for i in range(0, len(tools), _TOOLS_PER_TALK)]


def _talk(random: Random, tools: list[dict[str, Any]]) -> str:
    lines = ["Tools:", json.dumps([_definition(tool) for tool in tools], ensure_ascii=False)]
    for turn in range(len(tools[0]["asks"])):
        for tool in tools:
            lines += ["", *_turn(random, tool, turn)]
    return "\n".join(lines)


def _definition(tool: dict[str, Any]) -> dict[str, Any]:
    properties = {
        name: {"type": "integer", "minimum": values["span"][0], "maximum": values["span"][1]}
        if isinstance(values, dict)
        else {"type": "string", "enum": values}
        for name, values in tool["takes"].items()
    }
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": tool["name"], "description": tool["about"], "parameters": parameters}


def _turn(random: Random, tool: dict[str, Any], turn: int) -> list[str]:
    """Request, call, result, answer."""
    arguments = {name: _value(random, values) for name, values in tool["takes"].items()}
    gives = {name: _value(random, values) for name, values in tool["gives"].items()}
    words = {**arguments, **gives}
    failed = turn == 1 and "fails" in tool
    result = {"error": tool["fails"]} if failed else gives
    answer = f"That did not work for {arguments[next(iter(arguments))]}: {tool['fails']}." if failed else tool["says"][turn]
    return [
        f"User: {tool['asks'][turn].format(**words)}",
        f"Call: {json.dumps({'name': tool['name'], 'arguments': arguments}, ensure_ascii=False)}",
        f"Result: {json.dumps(result, ensure_ascii=False)}",
        f"Assistant: {answer.format(**words)}",
    ]


def _value(random: Random, values: Any) -> Any:
    return between(random, *values["span"]) if isinstance(values, dict) else pick(random, values)
