"""What can be said with a slash: a table of names, what each does, and the function that does it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import SprigError

if TYPE_CHECKING:
    from tui.screens.roles import Chat

Do = Callable[["Chat", str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class SlashCommand:
    """One command.

    Attributes:
        name: without the slash.
        about: a line for lists.
        hint: what may follow it.
        module, function: where it is done; imported when it is first called.
    """

    name: str
    about: str
    hint: str
    module: str
    function: str


def _row(name: str, about: str, hint: str = "", where: str = "tui.commands.conversation") -> SlashCommand:
    return SlashCommand(name, about, hint, where, name.replace("-", "_"))


_SETUP, _ABOUT = "tui.commands.setup", "tui.commands.about"
COMMANDS: tuple[SlashCommand, ...] = (
    _row("help", "Keys and commands"),
    _row("new", "Begin a new conversation"),
    _row("sessions", "Show the conversations that were kept"),
    _row("search", "Search all conversations", "[WORDS]"),
    _row("again", "Have the last message answered again"),
    _row("edit", "Edit a message and send it as a branch", "[NUMBER]"),
    _row("copy", "Copy the last answer, or a code block of it", "[code [NUMBER]]"),
    _row("export", "Write this conversation to a file", "md|json|svg"),
    _row("rename", "Name this conversation", "TITLE"),
    _row("delete", "Delete this conversation"),
    _row("stop", "Stop the answer"),
    _row("model", "Choose another model", "[NAME|FILE]", _SETUP),
    _row("tools", "Switch tools on and off", "[NAME ...]", _SETUP),
    _row("mcp", "Add or remove MCP servers", "[NAME=COMMAND|URL|remove NAME]", _SETUP),
    _row("think", "Switch thinking", "on|off|auto", _SETUP),
    _row("sampling", "How words are drawn", "[temperature=0.2 ...]", _SETUP),
    _row("system", "The system prompt", "[TEXT]", _SETUP),
    _row("rules", "What may run without asking", where=_ABOUT),
    _row("status", "All about the model and the machine", where=_ABOUT),
    _row("theme", "Choose the colours", "[NAME]", _ABOUT),
    _row("settings", "Where the settings are, and what is wrong with them", where=_ABOUT),
    _row("voice", "Speak instead of writing"),
    _row("quit", "Leave; the conversation is kept"),
)
BY_NAME = {command.name: command for command in COMMANDS}


async def run_command(chat: Chat, text: str) -> None:
    """Carry out ``/name arguments``. What goes wrong is one line on the screen."""
    from importlib import import_module

    name, _, arguments = text.removeprefix("/").partition(" ")
    command = BY_NAME[name]
    do: Do = getattr(import_module(command.module), command.function)
    try:
        await do(chat, arguments.strip())
    except SprigError as e:
        chat.tell(str(e), kind="error")
