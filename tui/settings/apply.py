"""Settings that have changed while the chat is open: which, and what becomes of the agent's setup."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

from tui.settings.values import ChatSettings
from tui.talk.setup import Setup

# What is decided when the chat starts.
_LATER = ("model", "root", "engine.context", "engine.cache", "engine.threads", "screen.mouse", "screen.line_mode")


def differences(before: ChatSettings, after: ChatSettings) -> tuple[list[str], list[str]]:
    """Dotted keys of what is different: what can hold at once, and what holds from the next start on."""
    keys = list(_different(before, after, ""))
    return [k for k in keys if k not in _LATER], [k for k in keys if k in _LATER]


def _different(before: Any, after: Any, way: str) -> list[str]:
    found = []
    for one in fields(before):
        old, new = getattr(before, one.name), getattr(after, one.name)
        if is_dataclass(old):
            found += _different(old, new, f"{way}{one.name}.")
        elif old != new:
            found.append(f"{way}{one.name}")
    return found


def with_settings(setup: Setup, before: ChatSettings, after: ChatSettings) -> Setup:
    """The setup with what has changed in the settings. What was changed in the conversation, and not in the file, stays."""
    own = tuple(t for t in setup.tools if not isinstance(t, str))
    new: dict[str, Any] = {}
    if after.tools != before.tools:
        new["tools"] = (*after.tools, *own)
    if after.mcp != before.mcp:
        new["mcp"] = (*after.mcp, *(s for s in setup.mcp if s not in before.mcp and s.name not in {c.name for c in after.mcp}))
    if after.rules != before.rules:
        new["rules"] = (*after.rules, *(r for r in setup.rules if r not in before.rules))
    if after.sampling != before.sampling:
        new |= {"sampling": after.sampling.chosen(), "max_tokens": after.sampling.max_tokens}
    if after.limits != before.limits:
        new |= {"rounds": after.limits.rounds, "seconds": after.limits.seconds}
    if after.system != before.system:
        new["system"] = after.system
    if after.think != before.think:
        new["thinking"] = after.think
    if after.unconfined != before.unconfined:
        new["unconfined"] = after.unconfined
    return replace(setup, **new)
