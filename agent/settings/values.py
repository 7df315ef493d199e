"""Everything that a person can set for the agent, whichever command or script uses it. Each setting is declared here, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from agent.settings.declare import section, setting, table
from agent.settings.kinds import ListKind, NameKind, NumberKind, RulesKind, ServersKind, SizeKind, SwitchKind, TextKind, WordKind

if TYPE_CHECKING:
    from agent.approval.policy import Rule
    from agent.tools.mcp.config import ServerConfig

# Tools that only read and count: those of a chat whose settings name none, with a model that is large enough for them.
CHAT_TOOLS = ("read_file", "list_files", "search_files", "calculate", "clock")
CHAT_TOOLS_FROM = 200_000_000  # parameters
_SERVERS = """\
# MCP servers: programs and sites that offer tools. Their tools are called
# NAME__tool. A server that this machine starts:
#
#     [mcp.weather]
#     command = "npx"
#     args = ["-y", "weather-server"]
#     env = { API_KEY = "..." }         # and PATH, HOME, LANG, TMPDIR; no more
#     cwd = "/home/me"                  # its folder
#
# A server on the network:
#
#     [mcp.house]
#     url = "https://house.example/mcp"
#     headers = { Authorization = "Bearer ..." }
#
# Either may also say:
#
#     allow = ["get_*"]                 # offer only these of its tools
#     deny = ["delete_*"]               # never these
#     timeout = 60                      # seconds for a call
#     connect_timeout = 10              # seconds to introduce itself
"""
_RULES = """\
# Rules: what may run without asking. "Always" in a question adds one here.
# A deny that fits wins; else the rule that says most; else the tool's own
# habit. Commands fit by their first words, paths by patterns below the root
# (* within a folder, ** beyond), addresses by host. Such as:
#
#     [[rules]]
#     action = "allow"                  # or "ask", or "deny"
#     tool = "run_command"              # a name, or a pattern such as "*_file"
#     argument = "command"              # which argument the pattern is about
#     pattern = "git status"
#     exact = true                      # this command and no more words
#     even-after-untrusted = true       # also when text of others was read
"""
_auto = partial(NumberKind, word="auto")


def _builtin_names() -> Sequence[str]:
    from agent.tools.builtin.catalogue import BUILTIN_NAMES

    return BUILTIN_NAMES


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How tokens are drawn; None leaves it to the model's file. Meaning as in ``agent.engine.sampling.Sampling``."""

    temperature: float | None = setting(_auto(0, 2), None, "0 always takes the likeliest word; 1 is lively; 2 is the most.")
    top_k: int | None = setting(_auto(0, 100_000, whole=True), None, "Draw among so many words; 0 for all.")
    top_p: float | None = setting(_auto(0, 1), None, "Draw among the likeliest that make up this probability.")
    min_p: float | None = setting(_auto(0, 1), None, "Leave out what is less likely than this part of the likeliest.")
    repeat_penalty: float | None = setting(_auto(0.5, 2), None, "Above 1, words among the last 64 become less likely; 1 is none.")
    seed: int | None = setting(
        _auto(0, 2**32 - 1, whole=True), None, 'A number makes the draws the same each time; "auto" does not.'
    )
    max_tokens: int = setting(NumberKind(1, 1_000_000, whole=True), 2048, "Tokens after which an answer is cut off.")

    def chosen(self) -> dict[str, float | int]:
        """What was chosen, as ``Agent(sampling=...)`` takes it."""
        names = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """What one run may use; as in ``agent.limits.Limits``."""

    rounds: int = setting(NumberKind(1, 1000, whole=True), 20, "Answers to one message; tools are called between them.")
    seconds: float | None = setting(
        NumberKind(1, 604_800, word="none"), None, 'Time for one message, tools included; "none" for as long as it takes.'
    )


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the model is loaded; None is what fits this machine."""

    context: int | None = setting(
        _auto(256, 16_777_216, whole=True),
        None,
        'Tokens that a conversation may hold; more take more memory. "auto" takes what is usual, as far as it fits.',
    )
    cache: Literal["f16", "q8_0"] | None = setting(
        WordKind(("f16", "q8_0"), word="auto"),
        None,
        '"q8_0" keeps the context in half the memory of "f16", and is slower on some processors. "auto" takes it when only a\n'
        "short context would fit otherwise.",
    )
    threads: int | None = setting(_auto(1, 1024, whole=True), None, '"auto" takes the big cores.')
    memory: int | None = setting(SizeKind(), None, 'What the model may take, such as "1.5 GB". "auto" is 70 % of what is free.')
    lora: tuple[str, ...] = setting(
        ListKind(TextKind(), once=True),
        (),
        'LoRA adapters (GGUF) for the model above: files, or "FILE=SCALE" such as "~/pirate.gguf=0.5".',
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """What the file says of the agent. What it says of the screen is in ``tui.settings.values.ChatSettings``."""

    model: str = setting(
        TextKind(), "", 'The model to open: a file, or a name that `sprig models` lists. "" asks when the chat starts.'
    )
    system: str = setting(
        TextKind(lines=True),
        "",
        'The system prompt: who the model is and how it should answer. "" leaves it to the model. Three quotes hold many lines:\n'
        '"""You are ...\nAnswer in one sentence."""',
    )
    root: str = setting(
        TextKind(folder=True),
        "",
        'The folder that file tools and commands never leave, such as "~/notes". "" is where you start the chat.',
    )
    tools: tuple[str, ...] | None = setting(
        ListKind(NameKind("built-in tool", CHAT_TOOLS, _builtin_names), once=True, word="auto"),
        None,
        f'Tools the model may use, such as ["read_file", "clock"]. "auto" is, in the chat, {", ".join(CHAT_TOOLS)}; none for a '
        f"model under {CHAT_TOOLS_FROM // 10**6} M parameters, which is better off without; and none in `sprig ask`. Each takes "
        "a part of the context. Also there: search_meaning, write_file, edit_file, run_command, fetch_url, query_sqlite, "
        "remember, recall, set_timer, list_timers, device_status.",
    )
    embedding_model: str = setting(
        TextKind(), "", "The embedding model with which search_meaning compares: a file, or a name that `sprig models` lists."
    )
    thinking: Literal["auto", "on", "off"] = setting(
        WordKind(("auto", "on", "off")),
        "auto",
        'Thinking before an answer, where the model can: "on", "off", or "auto" for the model\'s own habit.',
    )
    unconfined: bool = setting(
        SwitchKind(),
        False,
        "Let rules (see the end of this file) allow commands also on a machine where nothing keeps a command from files outside "
        "the root.",
    )
    sampling: SamplingSettings = section(SamplingSettings, 'How words are drawn. "auto" is what the makers of the model advise.')
    limits: LimitSettings = section(LimitSettings, "What the answer to one message may use.")
    engine: EngineSettings = section(EngineSettings, "How the model is loaded.")
    # Tables with free keys stand in the file from the last to the first: the rules, which grow, end it.
    rules: tuple[Rule, ...] = table(RulesKind(), tuple, _RULES)
    mcp: tuple[ServerConfig, ...] = table(ServersKind(), tuple, _SERVERS)

    @property
    def think(self) -> bool | None:
        """``thinking`` as ``Agent(thinking=...)`` takes it."""
        return {"auto": None, "on": True, "off": False}[self.thinking]
