"""Telling a model of its tools, and of their results, where its chat template does not.

Families that were trained to call tools get the wording they were trained with, as their model cards give it; all others a short
text that shows the format once. On a small device every token of it is read before the first answer, so it is short.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

from agent.dialects.base import Dialect
from agent.dialects.segments import joined, tame, trusted, untrusted
from agent.dialects.write import write_calls
from agent.messages import Message, Segment, ToolCall, ToolSpec

# A call's name and arguments in the example: what no tool is called, so that a model that copies it is found out.
_EXAMPLE = ToolCall("TOOL_NAME", {"ARGUMENT": "VALUE"}, "000000000")
_dumps = partial(json.dumps, ensure_ascii=False)
_TOOL_RESPONSE = frozenset({"hermes", "qwen-coder", "minicpm5"})  # an untrained model would answer with the mark itself


def generic_instructions(tools: Sequence[ToolSpec], dialect: Dialect) -> list[Segment]:
    """A text for the system prompt which teaches a model to call tools in a dialect; nothing if there are no tools.

    One tool a line, as JSON with name, description and parameters.
    """
    if not tools:
        return []
    return _taught(
        dialect, tools, "You have these tools:\n", "To use a tool, reply with only this:\n",
        "\nYou then get its result. Use a tool only if the request needs it; otherwise answer directly.",
    )  # fmt: skip


def examples() -> list[Message]:
    """A few turns that show an untrained model when to call and when not: a small one learns it from nothing else."""
    time = ToolCall("get_time", {"city": "Delhi"}, "000000001")
    oven = ToolCall("heat_oven", {"degrees": 180, "minutes": 20}, "000000002")
    return [
        Message("user", "Hi, who are you?"),
        Message("assistant", "I am a helpful assistant. What can I do for you?"),
        Message("user", "What time is it in Delhi?"),
        Message("assistant", calls=(time,)),
        Message("tool", "14:05", call_id=time.id, name=time.name),
        Message("assistant", "It is 14:05 in Delhi."),
        Message("user", "What is bread made of?"),
        Message("assistant", "Bread is made of flour, water, salt and yeast."),
        Message("user", "Heat the oven to 180 degrees for 20 minutes."),
        Message("assistant", calls=(oven,)),
        Message("tool", "done", call_id=oven.id, name=oven.name),
        Message("assistant", "The oven is at 180 degrees for 20 minutes."),
    ]


def tools_text(dialect: Dialect, tools: Sequence[ToolSpec]) -> list[Segment]:
    """What a model's system prompt says of the tools where the template leaves them out, in its family's own wording."""
    if not tools:
        return []
    match dialect.name:
        case "hermes":
            return _hermes(tools)
        case "lfm2":
            return _listed("List of tools: ", tools)
        case "granite3":
            return _listed(
                "You are a helpful assistant with access to the following tools. When a tool is required to answer the user's "
                "query, respond only with <|tool_call|> followed by a JSON list of tools used. Otherwise answer directly.\n",
                tools,
            )
        case "phi4":
            return _listed("You are a helpful assistant with some tools.<|tool|>", tools, "<|/tool|>")
        case "deepseek":
            return _taught(
                dialect, tools, "You can call any of these function tools to satisfy the user's requests:\n",
                "Function tool call syntax:\n", "\nIf no tool is needed, answer directly.",
            )  # fmt: skip
        case _:
            return generic_instructions(tools, dialect)


def result_segments(dialect: Dialect, name: str, call_id: str, text: str) -> list[Segment]:
    """A tool's result as a part of a user's message, for templates without a role for tools.

    The id of the call that it answers is said where the dialect gives calls ids.
    """
    if dialect.name in _TOOL_RESPONSE:
        inside = tame(text, "</tool_response>")
        return joined([trusted("<tool_response>\n"), untrusted(inside), trusted("\n</tool_response>")])
    which = f" ({call_id})" if call_id and (dialect.id_key or dialect.id_open) else ""
    return joined([trusted("Result of "), untrusted(f"{name}{which}"), trusted(":\n"), untrusted(text)])


def _hermes(tools: Sequence[ToolSpec]) -> list[Segment]:
    return joined([
        trusted("# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
                "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"),
        *(segment for tool in tools for segment in (untrusted(_dumps(tool.as_openai())), trusted("\n"))),
        trusted("</tools>\n\nFor each function call, return a json object with function name and arguments within "
                "<tool_call></tool_call> XML tags:\n<tool_call>\n"
                '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'),
    ])  # fmt: skip


def _listed(before: str, tools: Sequence[ToolSpec], after: str = "") -> list[Segment]:
    """All tools as one JSON list."""
    return joined([trusted(before), untrusted(_dumps([_function(tool) for tool in tools])), trusted(after)])


def _taught(dialect: Dialect, tools: Sequence[ToolSpec], before: str, syntax: str, after: str) -> list[Segment]:
    """One tool a line, and how a call is written."""
    lines = [segment for tool in tools for segment in (untrusted(_dumps(_function(tool))), trusted("\n"))]
    example = write_calls(dialect, [_EXAMPLE], {_EXAMPLE.name: ToolSpec(_EXAMPLE.name)})
    return joined([trusted(before), *lines, trusted(syntax), *example, trusted(after)])


def _function(tool: ToolSpec) -> dict[str, object]:
    """A tool without what says nothing: the wrapper, an empty description."""
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "parameters": tool.parameters}
