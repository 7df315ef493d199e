"""The child process of agent.template: renders one template under limits. Imports jinja2 and nothing heavier.

Reads a JSON object from standard input, writes one to standard output: {"broken": why}, or {"error", "system", "tools"}.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

Job = Mapping[str, Any]

# Words that no template contains by itself.
_SYSTEM_WORD, _TOOL_WORD = "Zfqxsystem", "zfqx_tool"
_CHAT = [
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


class _Template(Protocol):
    def generate(self, **variables: Any) -> Any: ...


class _Broken(Exception):
    """The template must not be used; the message says why and follows the words "the chat template"."""


class _Generation(Extension):
    """``{% generation %}`` marks what the model itself wrote; for rendering, its body is all there is to it."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """A namespace whose attributes cannot reach into Python."""

    def __init__(*args: Any, **attributes: Any) -> None:
        # As in jinja2, self stays positional, so that a template may call an attribute "self".
        for name in dict(*args[1:], **attributes):
            _refuse_underscore(name)
        Namespace.__init__(*args, **attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


def _refuse_underscore(name: object) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"a namespace attribute may not be called {name!r}")


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControlExtension]
    )

    def raise_exception(message: object) -> None:
        raise jinja2.TemplateError(str(message))

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        # jinja2's own filter escapes for HTML.
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(form: str) -> str:
        return datetime.now().strftime(form)

    environment.filters["tojson"] = tojson
    environment.globals.update(raise_exception=raise_exception, strftime_now=strftime_now, namespace=_Namespace)
    return environment


def _render(template: _Template, job: Job, chat: list[dict[str, str]], tools: list[dict[str, Any]] | None) -> str:
    pieces: list[str] = []
    length = 0
    for piece in template.generate(
        messages=chat, tools=tools, documents=None, add_generation_prompt=True, bos_token=job["bos"], eos_token=job["eos"]
    ):
        pieces.append(piece)
        length += len(piece)
        if length > job["max_output"]:
            raise _Broken(f"writes more than {job['max_output']} characters for three short messages")
    return "".join(pieces)


def _attempt(template: _Template, job: Job, system: bool, tools: bool) -> tuple[str, str | None]:
    """What it renders, and why it does not."""
    chat = [_SYSTEM, *_CHAT] if system else _CHAT
    try:
        return _render(template, job, chat, [_TOOL] if tools else None), None
    except SecurityError as e:
        raise _Broken(f"tries to leave its sandbox ({e})") from None
    except MemoryError:
        raise _Broken("takes too much memory") from None
    except (_Broken, KeyboardInterrupt):
        raise
    except RecursionError:
        raise _Broken("never stops calling itself") from None
    except Exception as e:  # a template's code may raise whatever Python can
        return "", f"{e}" if isinstance(e, jinja2.TemplateError) else f"{type(e).__name__}: {e}"


def _check(job: Job) -> dict[str, Any]:
    try:
        template = _environment().from_string(job["template"])
    except jinja2.TemplateSyntaxError as e:
        raise _Broken(f"does not parse (line {e.lineno}: {e.message})") from None
    except (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError) as e:
        raise _Broken(f"does not parse ({type(e).__name__}: {e})") from None
    _, error = _attempt(template, job, system=False, tools=False)
    with_system, _ = _attempt(template, job, system=True, tools=False)
    with_tools, _ = _attempt(template, job, system=False, tools=True)
    return {"error": error, "system": _SYSTEM_WORD in with_system, "tools": _TOOL_WORD in with_tools}


def _limit(job: Job) -> None:
    # Counted from here: on a slow board the imports above may have taken a second themselves.
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + job["cpu_seconds"]) + 1
    limits = (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, job["memory_bytes"]),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    )
    for what, value in limits:
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit of the address space
            resource.setrlimit(what, (value, value))


def main() -> None:
    """One job, one answer."""
    job: Job = json.loads(sys.stdin.buffer.read())
    _limit(job)
    try:
        answer = _check(job)
    except _Broken as e:
        answer = {"broken": str(e)}
    except MemoryError:
        answer = {"broken": "takes too much memory"}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
