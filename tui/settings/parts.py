"""The parts of the settings that the agent owns, read with its own checks: MCP servers and approval rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tui.settings.kinds import Choice, Kind, Number, Switch, Text, Where, WrongSetting, name, nearest, wrong

if TYPE_CHECKING:
    from agent.approval.policy import Rule
    from agent.tools.mcp.config import ServerConfig


@dataclass(frozen=True, slots=True)
class _List:
    """An array of texts, as it is."""

    of: Text = field(default_factory=Text)

    def read(self, value: Any, where: Where) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise wrong(where, value, 'is an array of texts: ["one", "two"]')
        return tuple(self.of.read(item, (*where, i)) for i, item in enumerate(value))

    def write(self, value: Any) -> list[str]:
        return list(value)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """A table of texts."""

    of: Text = field(default_factory=lambda: Text(lines=True))

    def read(self, value: Any, where: Where) -> dict[str, str]:
        if not isinstance(value, dict):
            raise wrong(where, value, 'is a table of texts: { NAME = "value" }')
        return {key: self.of.read(item, (*where, key)) for key, item in value.items()}

    def write(self, value: Mapping[str, str]) -> dict[str, str]:
        return dict(value)


_SERVER: dict[str, Kind] = {
    "command": Text(), "args": _List(Text(lines=True)), "env": _Pairs(), "cwd": Text(), "url": Text(), "headers": _Pairs(),
    "timeout": Number(0.001, 100_000), "connect_timeout": Number(0.001, 100_000), "allow": _List(), "deny": _List(),
}  # fmt: skip
_RULE: dict[str, Kind] = {
    "action": Choice(("allow", "ask", "deny")), "tool": Text(), "argument": Text(), "pattern": Text(lines=True),
    "exact": Switch(),
}  # fmt: skip


def read_servers(table: Any) -> tuple[ServerConfig, ...]:
    """The servers of the tables ``[mcp.NAME]``. Raises WrongSetting."""
    if not isinstance(table, dict):
        raise wrong(("mcp",), table, "is a table: write each server below a line with [mcp.NAME]")
    return tuple(_server(key, value) for key, value in table.items())


def _server(title: str, value: Any) -> ServerConfig:
    from agent.tools.mcp.config import MCPError, ServerConfig

    where: Where = ("mcp", title)
    if not isinstance(value, dict):
        raise wrong(where, value, "is a table: write each server below a line with [mcp.NAME]")
    found = _fields(value, where, _SERVER)
    arguments = found.pop("args", ())
    if arguments and "command" not in found:
        raise WrongSetting((*where, "args"), f"{name(where)} has args and no command that they are for")
    if "command" in found:
        found["command"] = (found["command"], *arguments)
    try:
        return ServerConfig(title, **found)
    except MCPError as e:
        raise WrongSetting(where, str(e)) from None


def read_rules(value: Any) -> tuple[Rule, ...]:
    """The rules of the tables ``[[rules]]``. Raises WrongSetting."""
    if not isinstance(value, list):
        raise wrong(("rules",), value, "is a list: write each rule below a line with [[rules]]")
    return tuple(_rule(item, ("rules", i)) for i, item in enumerate(value))


def _rule(value: Any, where: Where) -> Rule:
    from agent.approval.policy import PolicyError, Rule

    if not isinstance(value, dict):
        raise wrong(where, value, "is a list: write each rule below a line with [[rules]]")
    try:
        return Rule.from_dict(_fields(value, where, _RULE))
    except PolicyError as e:
        raise WrongSetting(where, str(e)) from None


def _fields(table: Mapping[str, Any], where: Where, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    found = {}
    for key, value in table.items():
        if key not in kinds:
            meant = nearest(key, kinds)
            hint = f"did you mean {meant}?" if meant else f"there are {', '.join(kinds)}"
            raise WrongSetting((*where, key), f"{name((*where, key))} is unknown; {hint}")
        found[key] = kinds[key].read(value, (*where, key))
    return found
