"""What the screen is told of an agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.children import process
from agent.models.demo import TITLE, demo_model
from tui.talk.notes import AgentFacts, ToolFacts

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.models.file import ModelFile


def facts_of(agent: Agent, problems: Sequence[str]) -> AgentFacts:
    """Facts of an agent whose model is loaded."""
    file, profile = agent.engine.file, agent.template.profile
    need = getattr(agent.engine, "need", None)
    return AgentFacts(
        name=name_of(file),
        type=file.type,
        path=file.path,
        context=agent.engine.context,
        trained=file.n_ctx_train,
        memory=need.total if need is not None else 0,
        thinks=bool(profile.thinking_on or profile.thinking_off),
        tools=tuple(ToolFacts(t.name, t.spec.description, t.approval, t.origin) for t in agent.tools),
        problems=tuple(problems),
        confinement=process.report(),
    )


def name_of(file: ModelFile) -> str:
    """What a person calls a model; untrusted. The demo model's file has the name of a training run."""
    return TITLE if file.path == str(demo_model()) else file.name
