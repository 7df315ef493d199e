"""What a person may know of an agent: its model, its tools, and how much of the context they take."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.errors import SprigError
from tui.talk.notes import AgentFacts, ToolFacts

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.models.file import ModelFile
    from agent.tools.define import Tool
    from agent.tools.mcp.servers import MCPServers


def tokens_when_empty(agent: Agent) -> int | None:
    """What system prompt, tools and the marks of one message take."""
    from agent.messages import Message

    with contextlib.suppress(SprigError):
        transcript = replace(agent.transcript(), messages=[], tokens=[], turns={}, held=[], prefix=0)
        transcript.rebuild([*([Message("system", agent.system)] if agent.system else []), Message("user", "")])
        return len(transcript.tokens)
    return None


def facts_of(agent: Agent, servers: MCPServers | None, problems: Sequence[str], *, small: bool) -> AgentFacts:
    """Facts of an agent whose model is loaded."""
    from agent.children import process

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
        tools=tools_of(agent, servers),
        problems=tuple(problems),
        confinement=process.report(),
        small=small,
    )


def tools_of(agent: Agent, servers: MCPServers | None) -> tuple[ToolFacts, ...]:
    """Facts of an agent's tools. No server is asked."""
    changed = {tool.spec.name for tool in servers.known_tools() if tool.changed} if servers is not None else set()
    return tuple(
        ToolFacts(t.name, t.spec.description, t.approval, t.origin, t.version if t.name in changed else "") for t in agent.tools
    )


@dataclass(frozen=True, slots=True)
class StoppedWaiting:
    """MCP servers as a source of tools: not waited for once a person has stopped the run, even if it has not begun."""

    servers: MCPServers
    stopping: threading.Event

    def tools(self, stopped: Callable[[], bool]) -> Sequence[Tool]:
        """See ToolSource."""
        return self.servers.tools(lambda: stopped() or self.stopping.is_set())


def name_of(file: ModelFile) -> str:
    """What a person calls a model; untrusted. The demo model's file has the name of a training run."""
    from agent.models.demo import TITLE, demo_model

    return TITLE if file.path == str(demo_model()) else file.name
