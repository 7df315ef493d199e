"""The built-in tools by name, made for one root and one home folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from agent import home as sprig_home
from agent.children import process
from agent.children.rules import ResourceLimits
from agent.tools.builtin.root import Root
from agent.tools.define import Subject, Tool, tool
from agent.tools.preview import Preview
from agent.tools.result import ToolDefinitionError, ToolError


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a built-in tool is.

    Attributes:
        approval: what happens when no rule speaks of it. What changes the world or sends something out is asked for; timers and
            notes are the agent's own.
        subjects: which arguments a rule's pattern is about.
        untrusted, acts: see Tool.
    """

    approval: Literal["allow", "ask"] = "allow"
    subjects: Mapping[str, Subject] = field(default_factory=dict)
    untrusted: bool = False
    acts: bool = False


_KNOWN: Mapping[str, _Kind] = {
    "read_file": _Kind(subjects={"path": "path"}, untrusted=True),
    "list_files": _Kind(subjects={"path": "path"}, untrusted=True),
    "search_files": _Kind(subjects={"path": "path"}, untrusted=True),
    "search_meaning": _Kind(untrusted=True),
    "write_file": _Kind("ask", {"path": "path"}, acts=True),
    "edit_file": _Kind("ask", {"path": "path"}, acts=True),
    "run_command": _Kind("ask", {"command": "command"}, untrusted=True, acts=True),
    "fetch_url": _Kind("ask", {"url": "url"}, untrusted=True, acts=True),
    "calculate": _Kind(),
    "clock": _Kind(),
    "set_timer": _Kind(acts=True),
    "list_timers": _Kind(untrusted=True),  # labels and notes may have been written in a conversation that was talked into it
    "remember": _Kind(acts=True),
    "recall": _Kind(untrusted=True),
    "device_status": _Kind(),
    "query_sqlite": _Kind(subjects={"path": "path"}, untrusted=True),
}
BUILTIN_NAMES: tuple[str, ...] = tuple(_KNOWN)

_OWN_LIMIT = {"run_command", "fetch_url", "search_files", "query_sqlite"}  # they end what they started, in their own time


_SECONDS = {"search_meaning": 120.0}  # the first search takes everything in, and a board is slow


def builtin(
    names: Iterable[str] = BUILTIN_NAMES,
    *,
    root: Path | None = None,
    home: Path | None = None,
    allow_private: bool = False,
    network: bool = False,
    command_seconds: float = 60.0,
    command_limits: ResourceLimits | None = None,
    embedding_model: str | Path = "",
) -> list[Tool]:
    """Built-in tools, in the order of their names.

    Args:
        names: some of BUILTIN_NAMES.
        root: the folder that file tools and commands never leave; by default the working directory.
        home: where notes and timers are kept; by default Sprig's home.
        allow_private: let ``fetch_url`` reach this machine and private networks.
        network: let commands open sockets.
        command_seconds: that one command may take.
        command_limits: on memory, processor time, file size and processes of one command.
        embedding_model: what ``search_meaning`` compares with.

    Raises:
        ToolDefinitionError: no built-in tool is called so.
        RootError: the root is no folder.
    """
    wanted = list(dict.fromkeys([names] if isinstance(names, str) else names))
    if unknown := [name for name in wanted if name not in _KNOWN]:
        raise ToolDefinitionError(f"no built-in tool is called {unknown[0]!r}: there are {', '.join(BUILTIN_NAMES)}")
    place = Root(root if root is not None else Path.cwd())
    kept = home if home is not None else sprig_home.home()
    settings = {"network": network, "seconds": command_seconds, "limits": command_limits}
    return [_make(name, place, kept, allow_private, settings, str(embedding_model)) for name in wanted]


def _make(name: str, root: Root, home: Path, allow_private: bool, settings: Mapping[str, Any], embedding: str) -> Tool:
    kind = _KNOWN[name]
    timeout = None if name in _OWN_LIMIT else _SECONDS.get(name, 30.0)
    owner = _owner(name, root, home, allow_private, settings, embedding)
    made = tool(timeout=timeout, approval=kind.approval, untrusted=kind.untrusted, acts=kind.acts)(getattr(owner, name))
    made.origin = "builtin"
    made.subjects = kind.subjects
    if (preview := getattr(owner, f"preview_{name}", None)) is not None:
        made.preview = partial(_previewed, made, preview)
    if name == "run_command":
        _as_command(made)
    return made


def _previewed(tool: Tool, preview: Callable[..., Preview], arguments: Mapping[str, Any]) -> Preview | None:
    try:
        values = tool.convert(arguments) if tool.convert is not None else arguments
    except ToolError:  # they do not fit; the call itself says so
        return None
    return preview(**values)


def _as_command(made: Tool) -> None:
    """What is to be said of a command before it is asked about: whether a shell may read it, whether it can run at all."""
    from agent.tools.builtin.shell import description, impossible

    made.spec = replace(made.spec, description=description())
    made.impossible = lambda arguments: impossible(command) if isinstance(command := arguments.get("command"), str) else ""
    if not process.confines_files():
        made.unconfined = f"nothing keeps a command from files outside the root here (confinement: {process.report()})"


def _owner(name: str, root: Root, home: Path, allow_private: bool, settings: Mapping[str, Any], embedding: str) -> object:
    """What has the tool's function under the tool's name. Each module is loaded only for the tools that are asked for."""
    if name in ("read_file", "list_files", "search_files", "write_file", "edit_file"):
        from agent.tools.builtin.files import FileTools

        return FileTools(root)
    if name == "search_meaning":
        from agent.tools.builtin.meaning import MeaningTool

        return MeaningTool(root, home, embedding)
    if name == "run_command":
        from agent.tools.builtin.shell import CommandTool

        return CommandTool(root, **settings)
    if name in ("fetch_url", "query_sqlite"):
        from agent.tools.builtin.lookup import SqlTool, WebTool

        return WebTool(allow_private=allow_private) if name == "fetch_url" else SqlTool(root)
    if name == "calculate":
        from agent.tools.builtin import calculator

        return calculator
    if name == "device_status":
        from agent.tools.builtin.device import DeviceTool

        return DeviceTool(root.path)
    if name in ("remember", "recall"):
        from agent.tools.builtin.notes import Notes

        return Notes(home / "notes.jsonl")
    from agent.tools.builtin import clock

    return clock if name == "clock" else clock.Timers(home / "timers.json")
