"""What commands have in common on the command line, and all that `sprig ask` and `sprig chat` take alike."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from agent.cli.completion import model_names, sessions_to_go_on_with, tool_names
from agent.cli.console import Console
from agent.errors import SprigError
from agent.files import parse_size
from agent.text import display

if TYPE_CHECKING:
    from agent.sessions.store import Session, Store
    from agent.settings.values import Settings

SETTINGS: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
# What MODEL may be: of commands that need a GGUF on this machine, and of those that read checkpoints too.
MODEL_HERE = "GGUF or a folder with one, name in the store or part of it, org/name that is here already, or demo."
MODEL_ANYWHERE = "Model of the Hub (org/name, org/name@revision, its address), folder, GGUF, name in the store, or demo."
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show log lines, and the traceback of an error.")]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")]
S = TypeVar("S", bound="Settings")


def confirm(out: Console, lines: Iterable[str], question: str, undone: str) -> None:
    """Ask before something goes for good, where nobody has said --yes; ``lines`` say what goes.

    Raises SprigError, which begins with ``undone``, on a no and where nobody can be asked.
    """
    if out.json or not sys.stdin.isatty():
        raise SprigError(f"{undone}: say --yes where nobody can be asked")
    for line in lines:
        out.say(display(line))
    if not typer.confirm(question, err=True):
        raise SprigError(undone)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no size; 1.5GB and 700M are") from None


Cache = Annotated[str | None, typer.Option(metavar="TYPE", help="K/V cache: f16, or q8_0 in half the memory.")]
Memory = Annotated[
    int | None,
    typer.Option(parser=_size, metavar="SIZE", help="What the model may take, such as 1.5GB; by default 70 % of what is free."),
]
Threads = Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads; by default one for each big core.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """The model, its tools and its limits. What is None is as the settings file has it."""

    model: Annotated[str | None, typer.Option("-m", "--model", metavar="MODEL", help=MODEL_HERE, autocompletion=model_names)] = (
        None
    )
    session: Annotated[
        str | None,
        typer.Option(
            metavar="new|last|ID",
            autocompletion=sessions_to_go_on_with,
            help="Conversation to go on with, or 'new'; sprig sessions lists them.",
        ),
    ] = None
    system: Annotated[str | None, typer.Option("-s", "--system", metavar="TEXT", help="System prompt.")] = None
    tool: Annotated[
        list[str] | None,
        typer.Option(
            "--tool",
            metavar="NAME",
            autocompletion=tool_names,
            help="Built-in tool, 'none', or a .py file with @tool functions; may be repeated.",
        ),
    ] = None
    mcp: Annotated[
        list[str] | None,
        typer.Option("--mcp", metavar="SERVER", help="NAME=COMMAND, an https URL or a JSON file; may be repeated."),
    ] = None
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="TOOL",
            autocompletion=tool_names,
            help="Let a tool run unasked (a name or pattern); may be repeated.",
        ),
    ] = None
    root: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder that file tools and commands are kept to.")] = None
    context: Annotated[int | None, typer.Option("-c", "--context", min=256, metavar="N", help="Tokens of context.")] = None
    cache: Cache = None
    memory: Memory = None
    threads: Threads = None
    lora: Annotated[
        list[str] | None,
        typer.Option("--lora", metavar="FILE[=SCALE]", help="LoRA adapter (GGUF) for the model; may be repeated."),
    ] = None
    temperature: Annotated[float | None, typer.Option(metavar="T", help="0 for the likeliest words; by default the model's.")] = (
        None
    )
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of the random draws.")] = None
    think: Annotated[bool | None, typer.Option("--think/--no-think", help="Switch thinking, where the model can.")] = None
    max_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="Tokens of one answer.")] = None
    rounds: Annotated[int | None, typer.Option(min=1, metavar="N", help="Answers to a message, tool calls between them.")] = None
    seconds: Annotated[float | None, typer.Option(metavar="S", help="Seconds for one message and all that comes of it.")] = None
    settings: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings; by default settings.toml in SPRIG_HOME.")] = (
        None
    )

    def over(self, settings: S) -> S:
        """The settings with what was said here. Its tools may be Tool objects too. Raises SprigError."""
        mcp, rules = settings.mcp, settings.rules
        if self.mcp:
            from agent.tools.mcp.config import ServerConfig

            mcp += tuple(server for text in self.mcp for server in ServerConfig.parse(text))
        if self.allow:
            from agent.approval.policy import Rule

            rules += tuple(Rule("allow", pattern) for pattern in self.allow)
        said = {
            "model": self.model or os.environ.get("SPRIG_MODEL") or None,
            "system": self.system,
            "root": str(self.root) if self.root is not None else None,
            "tools": _tools(self.tool) if self.tool is not None else None,
            "thinking": {None: None, True: "on", False: "off"}[self.think],
        }
        return replace(
            settings,
            **_given(**said),
            mcp=mcp,
            rules=rules,
            sampling=replace(
                settings.sampling, **_given(temperature=self.temperature, seed=self.seed, max_tokens=self.max_tokens)
            ),
            limits=replace(settings.limits, **_given(rounds=self.rounds, seconds=self.seconds)),
            engine=replace(
                settings.engine,
                **_given(
                    context=self.context,
                    cache=self.cache,
                    threads=self.threads,
                    memory=self.memory,
                    lora=tuple(self.lora) if self.lora else None,
                ),
            ),
        )


def with_agent_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let typer offer the options of AgentOptions in the place of the command's parameter ``options``."""
    hints = get_type_hints(AgentOptions, include_extras=True)
    shared = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in fields(AgentOptions)
    ]
    own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [
        p for one in own for p in (shared if one.name == "options" else [one.replace(kind=inspect.Parameter.KEYWORD_ONLY)])
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        options = AgentOptions(**{f.name: given.pop(f.name) for f in fields(AgentOptions)})
        command(options=options, **given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def find_session(store: Store, wanted: str) -> Session | None:
    """The conversation that ``--session`` means; None for a new one. Raises SprigError."""
    if wanted == "new":
        return None
    found = store.latest() if wanted == "last" else store.open(wanted)
    if found is None:
        raise SprigError("there is no session yet: --session new begins one")
    return found


def tools_of(path: Path) -> list[Any]:
    """The tools that a Python file defines with @tool. The file is run: it is the user's own. Raises SprigError."""
    import runpy

    from agent.tools.define import Tool

    if not path.is_file():
        raise SprigError(f"there is no file {path} with tools")
    try:
        found = [value for value in runpy.run_path(str(path)).values() if isinstance(value, Tool)]
    except SprigError:
        raise
    except Exception as e:
        raise SprigError(f"{path} could not be run: {type(e).__name__}: {' '.join(str(e).split())}") from None
    if not found:
        raise SprigError(f"{path} defines no tool; put @tool on a function in it (from agent import tool)")
    return list({id(t): t for t in found}.values())


def _tools(names: Sequence[str]) -> tuple[Any, ...]:
    if list(names) == ["none"]:
        return ()
    return tuple(tool for name in names for tool in (tools_of(Path(name)) if name.endswith(".py") else [name]))


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def leave_to(ctx: typer.Context, json: bool, verbose: bool) -> bool:
    """Whether a group's own callback leaves the work to a command behind it; that one takes the options."""
    called = ctx.invoked_subcommand
    if called is not None and (json or verbose):
        raise typer.BadParameter(f"options go behind {called!r}: {ctx.command_path} {called} --json")
    return called is not None
