"""The settings of ``sprig chat``: plain data and its defaults. What may be said in the file is in ``tui.settings.schema``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from agent.approval.policy import Rule
    from agent.tools.mcp.config import ServerConfig

OWN_THEMES = ("sprig", "sprig-light", "sprig-contrast", "sprig-16")
Thinking = Literal["auto", "on", "off"]


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How tokens are drawn; None leaves it to the model's file. Limits and meaning as in ``agent.engine.sampling.Sampling``.

    Attributes:
        seed: None draws a new one for each answer.
        max_tokens: of one answer.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None
    max_tokens: int = 2048

    def chosen(self) -> dict[str, float | int]:
        """What was chosen, as ``Agent(sampling=...)`` takes it."""
        names = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """What one run may use: ``rounds`` answers with tool calls between them, ``seconds`` in all (None: no limit)."""

    rounds: int = 20
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the model is loaded: ``context`` in tokens and ``threads``, None for what fits this machine."""

    context: int | None = None
    cache: Literal["f16", "q8_0"] = "f16"
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class ScreenSettings:
    """How it looks and behaves.

    Attributes:
        theme: one of ``tui.themes.names()``.
        reduced_motion: nothing moves or blinks by itself.
        mouse: take the mouse from the terminal.
        line_mode: for a slow line: an answer is shown line by line, with few redraws.
        fold_results: lines after which a tool's result is folded.
        approval_grace: seconds in which a key press does not answer a question that has just appeared.
        bell: ring when an answer or a question waits and the window has not the focus.
    """

    theme: str = "sprig"
    reduced_motion: bool = False
    mouse: bool = True
    line_mode: bool = False
    fold_results: int = 8
    approval_grace: float = 0.5
    bell: bool = True


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a person can set.

    Attributes:
        model: file, or name in the store, that is opened by default; "" asks.
        system: the system prompt; "" is the model's own.
        root: folder of the file tools, absolute or from ``~``; "" is where ``sprig chat`` was started.
        tools: names of the built-in tools that are on.
        thinking: switch a model's thinking, where it can be switched.
        unconfined: see ``agent.approval.policy.Policy``.
        rules: what may run without asking.
        mcp: MCP servers, in the order of the file.
        keys: action id -> its keys, "key,key", as ``App.set_keymap`` takes them.
    """

    model: str = ""
    system: str = ""
    root: str = ""
    tools: tuple[str, ...] = ("read_file", "list_files", "search_files", "calculate", "clock")
    thinking: Thinking = "auto"
    unconfined: bool = False
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    screen: ScreenSettings = field(default_factory=ScreenSettings)
    keys: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    mcp: tuple[ServerConfig, ...] = ()
    rules: tuple[Rule, ...] = ()

    @property
    def think(self) -> bool | None:
        """``thinking`` as ``Agent(thinking=...)`` takes it."""
        return {"auto": None, "on": True, "off": False}[self.thinking]
