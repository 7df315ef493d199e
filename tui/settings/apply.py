"""Settings that have changed while the chat is open: which, and what becomes of the agent's setup."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from agent.settings.declare import by_key
from agent.settings.values import EngineSettings
from tui.settings.values import ChatSettings
from tui.talk.setup import Setup

# What is decided when the chat starts.
_LATER = ("model", "root", *(f"engine.{f.name}" for f in fields(EngineSettings)), "screen.mouse", "screen.line_mode")


def differences(before: ChatSettings, after: ChatSettings) -> tuple[list[str], list[str]]:
    """Dotted keys of what is different: what can hold at once, and what holds from the next start on."""
    old, now = by_key(before), by_key(after)
    keys = [key for key in old if old[key] != now[key]]
    return [k for k in keys if k not in _LATER], [k for k in keys if k in _LATER]


def with_settings(setup: Setup, before: ChatSettings, after: ChatSettings) -> Setup:
    """The setup with what has changed in the settings. What was changed in the conversation, and not in the file, stays."""
    old, now = Setup.of(before, setup.root), Setup.of(after, setup.root)
    names = {server.name for server in now.mcp}
    own: dict[str, list[Any]] = {
        "tools": [tool for tool in setup.tools if not isinstance(tool, str)],
        "mcp": [server for server in setup.mcp if server not in old.mcp and server.name not in names],
        "rules": [rule for rule in setup.rules if rule not in old.rules],
    }
    at_once = {one.name for one in fields(setup)} - {key.partition(".")[0] for key in _LATER}
    new: dict[str, Any] = {name: value for name in at_once if (value := getattr(now, name)) != getattr(old, name)}
    for name in own.keys() & new.keys():
        new[name] = (*new[name], *own[name])
    return replace(setup, **new)
