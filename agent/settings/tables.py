"""MCP servers and approval rules in the settings: the shape is checked here, the rest by those they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.settings.kinds import (
    Kind,
    ListKind,
    NumberKind,
    PairsKind,
    SwitchKind,
    TextKind,
    Where,
    WordKind,
    WrongSetting,
    name,
    read_fields,
    wrong,
)  # fmt: skip

if TYPE_CHECKING:
    from agent.approval.policy import Rule
    from agent.tools.mcp.config import ServerConfig

_LINES = TextKind(lines=True)
_SERVER: dict[str, Kind] = {
    "command": TextKind(), "args": ListKind(_LINES), "env": PairsKind(_LINES), "cwd": TextKind(), "url": TextKind(),
    "headers": PairsKind(_LINES), "timeout": NumberKind(0.001, 100_000), "connect_timeout": NumberKind(0.001, 100_000),
    "allow": ListKind(TextKind()), "deny": ListKind(TextKind()),
}  # fmt: skip
_RULE: dict[str, Kind] = {
    "action": WordKind(("allow", "ask", "deny")), "tool": TextKind(), "argument": TextKind(), "pattern": _LINES,
    "exact": SwitchKind(),
}  # fmt: skip


class ServersKind(Kind):
    """The tables ``[mcp.NAME]``, each a server."""

    def read(self, value: Any, where: Where) -> tuple[ServerConfig, ...]:
        _must_be(dict, value, where, "is a table: write each server below a line with [mcp.NAME]")
        return tuple(_server(title, inner, (*where, title)) for title, inner in value.items())


def _server(title: str, value: Any, where: Where) -> ServerConfig:
    from agent.tools.mcp.config import MCPError, ServerConfig

    _must_be(dict, value, where, "is a table: write each server below a line with [mcp.NAME]")
    found = read_fields(value, where, _SERVER)
    arguments = found.pop("args", ())
    if arguments and "command" not in found:
        raise WrongSetting((*where, "args"), f"{name(where)} has args and no command that they are for")
    if "command" in found:
        found["command"] = (found["command"], *arguments)
    try:
        return ServerConfig(title, **found)
    except MCPError as e:
        raise WrongSetting(where, str(e)) from None


class RulesKind(Kind):
    """The tables ``[[rules]]``, each an approval rule."""

    def read(self, value: Any, where: Where) -> tuple[Rule, ...]:
        from agent.approval.policy import PolicyError, Rule

        how = "is a list: write each rule below a line with [[rules]]"
        _must_be(list, value, where, how)
        found = []
        for i, inner in enumerate(value):
            _must_be(dict, inner, (*where, i), how)
            try:
                found.append(Rule.from_dict(read_fields(inner, (*where, i), _RULE)))
            except PolicyError as e:
                raise WrongSetting((*where, i), str(e)) from None
        return tuple(found)


def _must_be(shape: type, value: Any, where: Where, how: str) -> None:
    if not isinstance(value, shape):
        raise wrong(where, value, how)
