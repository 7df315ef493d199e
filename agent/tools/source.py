"""Where an agent's tools come from: handed over once, or of a source that may have others before the next run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from agent.errors import SprigError
from agent.events import ToolsChanged
from agent.tools.define import Tool, as_tool


@runtime_checkable
class ToolSource(Protocol):
    """Something whose tools become others with time, as those of MCPServers do."""

    def tools(self, stopped: Callable[[], bool]) -> Sequence[Tool]:
        """What it has now. It may ask others for it, until ``stopped`` says so: then it answers what it knew."""
        ...


Given = Tool | ToolSource


def read_tools(wanted: Iterable[Any], root: Path, embedding_model: str | Path = "") -> tuple[Given, ...]:
    """Tools and sources in the order given, which the model sees and the cache depends on. SprigError when one is neither."""
    from agent.tools.builtin.catalogue import builtin

    if not isinstance(wanted, Iterable) or isinstance(wanted, Mapping):
        raise SprigError(f"tools is {wanted!r:.80} and must be a list: functions, Tool objects, names of built-in tools")
    made: list[Given] = []
    for thing in [wanted] if isinstance(wanted, str) else wanted:
        if isinstance(thing, str):
            made += builtin([thing], root=root, embedding_model=embedding_model)
        else:
            made.append(thing if isinstance(thing, ToolSource) else as_tool(thing))
    return tuple(made)


def tools_now(given: Iterable[Given], stopped: Callable[[], bool] = lambda: False) -> tuple[Tool, ...]:
    """The tools as they are now, those of the sources in their places. SprigError when two have one name."""
    made = [tool for one in given for tool in ([one] if isinstance(one, Tool) else one.tools(stopped))]
    names = [tool.name for tool in made]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SprigError(f"there are two tools called {twice!r}; give one another name: @tool(name=...)")
    return tuple(made)


def what_changed(before: Sequence[Tool], now: Sequence[Tool]) -> ToolsChanged | None:
    """What is other than before; None when nothing is."""
    old, new = ({tool.name: (tool.version, tool.spec) for tool in tools} for tools in (before, now))
    changed = ToolsChanged(
        new=tuple(name for name in new if name not in old),
        changed=tuple(name for name, what in new.items() if name in old and old[name] != what),
        gone=tuple(name for name in old if name not in new),
    )
    return changed if changed != ToolsChanged() else None
