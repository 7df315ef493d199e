"""The child process of agent.templates.support: renders one template under limits. Imports jinja2 and nothing heavier.

Reads a JSON object from standard input, writes one to standard output: {"broken": why}, or {"error", "system", "tools"}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from agent.templates.sandbox import Broken, Template, allow_processor_time, compiled, environment, limit, rendered

Job = Mapping[str, Any]

# Words that no template contains by itself.
_SYSTEM_WORD, _TOOL_WORD = "Zfqxsystem", "zfqx_tool"
CHAT = [
    {"role": "user", "content": "Hello, who are you?"},
    {"role": "assistant", "content": "A small model."},
    {"role": "user", "content": "What is the weather?"},
]
_SYSTEM = {"role": "system", "content": f"You are {_SYSTEM_WORD}."}
_TOOL = {
    "type": "function",
    "function": {
        "name": _TOOL_WORD,
        "description": "The weather at a place.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string", "description": "Where."}},
            "required": ["place"],
        },
    },
}


def render(
    template: Template, job: Job, chat: list[dict[str, str]], tools: list[dict[str, Any]] | None
) -> tuple[str, str | None]:
    """What it renders, and why it does not."""
    variables = {
        "messages": chat, "tools": tools, "documents": None, "add_generation_prompt": True,
        "bos_token": job["bos"], "eos_token": job["eos"],
    }  # fmt: skip
    return rendered(template, variables, job["max_output"])


def _check(job: Job) -> dict[str, Any]:
    template = compiled(environment(), job["template"])
    _, error = render(template, job, CHAT, None)
    with_system, _ = render(template, job, [_SYSTEM, *CHAT], None)
    with_tools, _ = render(template, job, CHAT, [_TOOL])
    return {"error": error, "system": _SYSTEM_WORD in with_system, "tools": _TOOL_WORD in with_tools}


def main() -> None:
    """One job, one answer."""
    job: Job = json.loads(sys.stdin.buffer.read())
    # Counted from here: on a slow board the imports above may have taken a second themselves.
    allow_processor_time(job["cpu_seconds"])
    limit(job["memory_bytes"])
    try:
        answer = _check(job)
    except Broken as e:
        answer = {"broken": str(e)}
    except MemoryError:
        answer = {"broken": "takes too much memory"}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
