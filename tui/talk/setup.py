"""What the agent of a conversation is made of: a person's settings, and what was changed since in this conversation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.settings.values import CHAT_TOOLS, CHAT_TOOLS_FROM, EngineSettings

if TYPE_CHECKING:
    from agent.approval.policy import Rule
    from agent.models.file import ModelFile
    from agent.settings.values import Settings
    from agent.tools.mcp.config import ServerConfig


@dataclass(frozen=True, slots=True)
class Setup:
    """All that an agent is made of.

    Attributes:
        model: a GGUF, the name of one in the store, or an Engine.
        tools: names of built-in tools, and Tool objects.
        usual_tools: whether the names are those that are usual for the model, and change with it.
        mcp: servers whose tools are offered too.
        system: the system prompt; "" is the model's own.
        thinking: switched on or off; None leaves it as the model has it.
        sampling: as ``Agent(sampling=...)`` takes it.
        max_tokens, rounds, seconds: limits of a run.
        engine: how the model is loaded.
        root: the folder of file tools and commands.
        rules, unconfined: the approval policy.
        embedding_model: what the tool ``search_meaning`` compares with.
    """

    model: Any = ""
    tools: tuple[Any, ...] = ()
    usual_tools: bool = False
    mcp: tuple[ServerConfig, ...] = ()
    system: str = ""
    thinking: bool | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int = 2048
    rounds: int = 20
    seconds: float | None = None
    engine: EngineSettings = field(default_factory=EngineSettings)
    root: Path = field(default_factory=Path.cwd)
    rules: tuple[Rule, ...] = ()
    unconfined: bool = False
    embedding_model: str = ""

    @classmethod
    def of(cls, settings: Settings, root: Path) -> Setup:
        """What a conversation begins with."""
        return cls(
            model=settings.model,
            tools=settings.tools or (),
            usual_tools=settings.tools is None,
            mcp=settings.mcp,
            system=settings.system,
            thinking=settings.think,
            sampling=settings.sampling.chosen(),
            max_tokens=settings.sampling.max_tokens,
            rounds=settings.limits.rounds,
            seconds=settings.limits.seconds,
            engine=settings.engine,
            root=root,
            rules=settings.rules,
            unconfined=settings.unconfined,
            embedding_model=settings.embedding_model,
        )

    def on(self, model: str) -> Setup:
        """The same with another model. Adapters are for the one that they were named with, so they stay with that."""
        kept = self.engine if str(self.model) in ("", model) else replace(self.engine, lora=())
        return replace(self, model=model, engine=kept)

    def with_tools(self, tools: Iterable[Any]) -> Setup:
        """The same with the tools that a person chose."""
        return replace(self, tools=tuple(tools), usual_tools=False)

    def for_model(self, file: ModelFile) -> Setup:
        """The same with the tools that are usual for this model, where no others were chosen."""
        if not self.usual_tools:
            return self
        usual = CHAT_TOOLS if file.parameters >= CHAT_TOOLS_FROM else ()
        return replace(self, tools=(*usual, *(t for t in self.tools if not isinstance(t, str))))

    @property
    def load(self) -> tuple[str, EngineSettings]:
        """What the model must be loaded again for when it changes."""
        return str(self.model), self.engine

    @property
    def tool_names(self) -> tuple[str, ...]:
        return tuple(t if isinstance(t, str) else t.name for t in self.tools)
