"""The built-in tools by name, made for one root and one home folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from agent import home as sprig_home
from agent.children import process
from agent.children.rules import ResourceLimits
from agent.tools.builtin.root import Root
from agent.tools.define import Subject, Tool, tool
from agent.tools.result import ToolDefinitionError

# Name -> what happens when no rule speaks of it, and which arguments a rule's pattern is about. What changes the world or
# sends something out is asked for; timers and notes are the agent's own.
_KNOWN: Mapping[str, tuple[Literal["allow", "ask"], Mapping[str, Subject]]] = {
    "read_file": ("allow", {"path": "path"}),
    "list_files": ("allow", {"path": "path"}),
    "search_files": ("allow", {"path": "path"}),
    "search_meaning": ("allow", {}),
    "write_file": ("ask", {"path": "path"}),
    "edit_file": ("ask", {"path": "path"}),
    "run_command": ("ask", {"command": "command"}),
    "fetch_url": ("ask", {"url": "url"}),
    "calculate": ("allow", {}),
    "clock": ("allow", {}),
    "set_timer": ("allow", {}),
    "list_timers": ("allow", {}),
    "remember": ("allow", {}),
    "recall": ("allow", {}),
    "device_status": ("allow", {}),
    "query_sqlite": ("allow", {"path": "path"}),
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
    shell: bool = False,
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
        shell: let a shell read commands, with pipes and redirections.
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
    settings = {"shell": shell, "network": network, "seconds": command_seconds, "limits": command_limits}
    return [_make(name, place, kept, allow_private, settings, str(embedding_model)) for name in wanted]


def _make(name: str, root: Root, home: Path, allow_private: bool, settings: Mapping[str, Any], embedding: str) -> Tool:
    approval, subjects = _KNOWN[name]
    timeout = None if name in _OWN_LIMIT else _SECONDS.get(name, 30.0)
    made = tool(timeout=timeout, approval=approval)(getattr(_owner(name, root, home, allow_private, settings, embedding), name))
    made.origin = "builtin"
    made.subjects = subjects
    if name == "run_command" and not process.confines_files():
        made.unconfined = f"nothing keeps a command from files outside the root here (confinement: {process.report()})"
    return made


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
