"""What the settings make of an agent."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from agent import home
from agent.errors import SprigError
from agent.settings.file import agent_settings, place
from agent.settings.values import Settings


def load(settings: Settings | str | Path | None) -> Settings:
    """The settings of a file, by default the person's, with the model that SPRIG_MODEL names; settings as they are.

    Raises SettingsError when the file has an error, or a file that was named is not there.
    """
    if isinstance(settings, Settings):
        return settings
    found = agent_settings(place(Path(settings) if settings is not None else None)).load()
    return replace(found, model=os.environ.get("SPRIG_MODEL") or found.model)


def agent_arguments(settings: Settings) -> dict[str, Any]:
    """The settings as ``Agent.from_settings`` takes them; the model is left out. Raises SprigError when the root is not there."""
    from agent.approval.policy import Policy
    from agent.limits import Limits

    limits = settings.limits
    return {
        "tools": settings.tools or (),
        "mcp": settings.mcp,
        "system": settings.system,
        "policy": Policy(settings.rules, settings.unconfined),
        "root": root_of(settings),
        "thinking": settings.think,
        "limits": Limits(rounds=limits.rounds, tokens=settings.sampling.max_tokens, seconds=limits.seconds),
        "sampling": settings.sampling.chosen(),
        "engine": asdict(settings.engine),
        "embedding_model": settings.embedding_model,
    }


def root_of(settings: Settings) -> Path:
    """The folder of file tools and commands. Raises SprigError when it is not there."""
    where = Path(settings.root or ".").expanduser().absolute()
    if not where.is_dir():
        raise SprigError(f"the folder {where} for file tools is not there: --root or root in the settings names another")
    return where


def model_of(settings: Settings) -> str:
    """The model of the settings, or the only one in the store. Raises SprigError."""
    if settings.model:
        return settings.model
    found = sorted(home.models().glob("*.gguf")) if home.models().is_dir() else []
    if len(found) == 1:
        return str(found[0])
    if not found:
        from agent.models.demo import demo_model

        demo = ", or try the demo model with -m demo" if demo_model() is not None else ""
        raise SprigError(f"no model is named and none is in the store: -m FILE, make one with `sprig quantize`{demo}")
    names = ", ".join(f.stem for f in found[:6]) + (", ..." if len(found) > 6 else "")
    raise SprigError(
        f"no model is named, and the store has {len(found)}: -m NAME, SPRIG_MODEL or model in the settings, one of {names}"
    )
