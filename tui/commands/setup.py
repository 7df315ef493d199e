"""Slash commands that change the agent of the conversation: its model, tools, servers, thinking, sampling and system prompt.

The model stays loaded, and so does the conversation; only another model is loaded anew.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.errors import SprigError
from agent.text.nearest import nearest
from tui.talk.setup import Setup

if TYPE_CHECKING:
    from tui.screens.chat import ChatScreen
    from tui.settings.sampling_values import Values
    from tui.talk.notes import AgentFacts

_THINKING = {"on": True, "off": False, "auto": None}


def change(chat: ChatScreen, setup: Setup, now: str) -> None:
    """Let a setup hold, and say in ``now`` what that means."""
    chat.change(setup)
    when = " The answer that is being written is not changed." if chat.busy else ""
    chat.tell(f"{now}{when} Until you leave; settings.toml (/settings) keeps it.")


async def model(chat: ChatScreen, arguments: str) -> None:
    from tui.offers import named

    if not arguments:
        chat.sprig.action_pick_model()
        return
    found = await asyncio.to_thread(named, arguments)
    chat.change(chat.setup.on(str(found.path)))
    when = "after this answer" if chat.busy else "now"
    chat.tell(f"{found.name} is opened {when}; the conversation goes on with it.")


# Tools.


async def tools(chat: ChatScreen, arguments: str) -> None:
    if arguments:
        _use_tools(chat, _tools_meant(chat.setup, arguments))
        return
    from tui.screens.tools import ToolsScreen

    def chosen(names: tuple[str, ...] | None) -> None:
        if names is not None:
            kept = tuple(t for t in chat.setup.tools if not isinstance(t, str))
            _use_tools(chat, chat.setup.with_tools((*names, *kept)))

    await chat.app.push_screen(ToolsScreen(chat.setup, chat.facts, chat.sprig.talk), chosen)


def _use_tools(chat: ChatScreen, setup: Setup) -> None:
    if set(setup.tool_names) == set(chat.setup.tool_names):
        chat.tell(f"{_tool_words(setup)} That is as it was.")
    else:
        change(chat, setup, f"{_tool_words(setup)} The next message takes longer once: the prompt is read anew.")


def _tool_words(setup: Setup) -> str:
    servers = f" And those of the MCP servers: {', '.join(s.name for s in setup.mcp)}." if setup.mcp else ""
    return f"Tools: {', '.join(setup.tool_names) or 'none'}.{servers}"


def _tools_meant(setup: Setup, arguments: str) -> Setup:
    """The tools that ``NAME NAME``, ``none`` or ``+NAME -NAME`` leaves. Those of a script stay, unless they are named with -."""
    from agent.tools.builtin.catalogue import BUILTIN_NAMES

    words = arguments.replace(",", " ").split()
    signs = {word[0] if word[0] in "+-" else "" for word in words}
    if "" in signs and len(signs) > 1:
        raise SprigError("/tools takes either names, or +NAME and -NAME: /tools read_file clock, /tools +run_command -clock")
    own = {t.name: t for t in setup.tools if not isinstance(t, str)}
    names = [word.lstrip("+-") for word in words]
    for name in names:
        if name not in BUILTIN_NAMES and name not in own and names != ["none"]:
            meant = nearest(name, (*BUILTIN_NAMES, *own))
            hint = f"did you mean {meant}?" if meant else f"there are {', '.join(BUILTIN_NAMES)}"
            raise SprigError(f"there is no tool {name[:60]!r}; {hint}")
    if "" in signs:
        wanted = [*own, *(name for name in names if name != "none")]
    else:
        wanted = list(setup.tool_names)
        for word, name in zip(words, names, strict=True):
            wanted = [*(w for w in wanted if w != name), *([name] if word[0] == "+" else [])]
    return setup.with_tools(own.get(name, name) for name in dict.fromkeys(wanted))


# MCP servers.


async def mcp(chat: ChatScreen, arguments: str) -> None:
    word, _, name = arguments.partition(" ")
    if not arguments:
        await _show_servers(chat)
    elif word == "remove":
        _remove_server(chat, name.strip())
    else:
        await _add_servers(chat, arguments)


async def _add_servers(chat: ChatScreen, text: str) -> None:
    from agent.tools.mcp.config import ServerConfig

    new = await asyncio.to_thread(ServerConfig.parse, text)
    names = {server.name for server in new}
    kept = (server for server in chat.setup.mcp if server.name not in names)
    listed = ", ".join(server.name for server in new)
    change(chat, replace(chat.setup, mcp=(*kept, *new)), f"Connecting to {listed}; /mcp shows how it went.")


def _remove_server(chat: ChatScreen, name: str) -> None:
    names = [server.name for server in chat.setup.mcp]
    if name not in names:
        hint = f"there are {', '.join(names)}" if names else "none is there"
        raise SprigError(f"there is no MCP server {name[:60]!r}; {hint}")
    rest = tuple(server for server in chat.setup.mcp if server.name != name)
    change(chat, replace(chat.setup, mcp=rest), f"{name} is gone, with its tools.")


async def _show_servers(chat: ChatScreen) -> None:
    from tui.screens.details import DetailsScreen

    servers = [
        (s.name, f"{s.url or ' '.join(s.command or ())}\n{_state(s.name, chat.facts)}") for s in chat.setup.mcp
    ] or [("None", "no MCP server is there")]  # fmt: skip
    note = "/mcp NAME=COMMAND or /mcp URL adds one, /mcp remove NAME takes it away. [mcp.NAME] in settings.toml keeps it."
    await chat.app.push_screen(DetailsScreen(servers, "MCP servers", note))


def _state(server: str, facts: AgentFacts | None) -> str:
    if facts is None:
        return "not connected yet"
    found = [tool.name.removeprefix(f"{server}__") for tool in facts.tools if tool.name.startswith(f"{server}__")]
    problem = next((p for p in facts.problems if p.startswith(f"MCP server {server}:")), "")
    if problem:
        return f"✗ {problem}"
    changed = [tool.name for tool in facts.tools if tool.changed and tool.name.startswith(f"{server}__")]
    look = f"\n! {', '.join(changed)} changed; /tools shows how" if changed else ""
    return f"✓ {len(found)} tools: {', '.join(found)}{look}" if found else "no tools"


# How it thinks and draws words.


async def think(chat: ChatScreen, arguments: str) -> None:
    facts, setup = chat.facts, chat.setup
    if not arguments:
        now = next(word for word, value in _THINKING.items() if value is setup.thinking)
        cannot = f" {_cannot_think(facts)}" if facts is not None and not facts.thinks else ""
        chat.tell(f"Thinking is {now}; /think on, off or auto switches it.{cannot}")
        return
    if arguments not in _THINKING:
        raise SprigError(f"/think takes on, off or auto, not {arguments[:40]!r}")
    if facts is not None and not facts.thinks and arguments != "auto":
        raise SprigError(_cannot_think(facts))
    words = {"on": "Thinking is on.", "off": "Thinking is off.", "auto": "Thinking is as the model has it."}
    change(chat, replace(setup, thinking=_THINKING[arguments]), words[arguments])


def _cannot_think(facts: AgentFacts) -> str:
    return f"{facts.name} has no switch for its thinking: another model may (/model)"


async def sampling(chat: ChatScreen, arguments: str) -> None:
    from tui.settings.sampling_values import changed, read_pairs, said

    def use(values: Values | None) -> None:
        if values is not None:
            setup = changed(chat.setup, values)
            change(chat, setup, f"Words are drawn with: {said(setup)}.")

    if arguments:
        use(read_pairs(arguments))
        return
    from tui.screens.sampling import SamplingScreen

    await chat.app.push_screen(SamplingScreen(chat.setup), use)


async def system(chat: ChatScreen, arguments: str) -> None:
    def use(text: str | None) -> None:
        if text is None:
            return
        text = text.strip()
        now = "The system prompt is changed." if text else "The system prompt is the model's own."
        change(chat, replace(chat.setup, system=text), f"{now} The next message takes longer once: the prompt is read anew.")

    if arguments:
        use(arguments)
        return
    from tui.screens.text import TextScreen

    note = "Who the model is and how it should answer. Without a text: the model's own."
    await chat.app.push_screen(TextScreen("System prompt", chat.setup.system, "You are …", note), use)
