"""What can be said with a slash: a table of names, what each does, and the function that does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import SprigError

if TYPE_CHECKING:
    from tui.screens.chat import ChatScreen


@dataclass(frozen=True, slots=True)
class SlashCommand:
    """One command.

    Attributes:
        name: without the slash.
        about: a line for lists.
        hint: what may follow it.
        module: where the function of that name is; imported when it is first called.
        action: of the chat, when a command does no more than a key.
    """

    name: str
    about: str
    hint: str = ""
    module: str = "tui.commands.conversation"
    action: str = ""


_SETUP, _ABOUT = "tui.commands.setup", "tui.commands.about"
COMMANDS = (
    SlashCommand("help", "Keys and commands"),
    SlashCommand("new", "Begin a new conversation", action="new"),
    SlashCommand("sessions", "Show the conversations that were kept", action="sessions"),
    SlashCommand("search", "Search all conversations", "[WORDS]"),
    SlashCommand("again", "Have the last message answered again", action="again"),
    SlashCommand("edit", "Edit a message and send it as a branch", "[NUMBER]"),
    SlashCommand("editor", "Write the message in your own editor", "[TEXT]"),
    SlashCommand("compact", "Shorten what the model remembers"),
    SlashCommand("undo", "Put back what the last answer wrote"),
    SlashCommand("copy", "Copy the last answer, or code of it", "[code [NUMBER]]"),
    SlashCommand("export", "Write this conversation to a file", "md|json|svg"),
    SlashCommand("rename", "Name this conversation", "TITLE"),
    SlashCommand("delete", "Delete this conversation"),
    SlashCommand("stop", "Stop the answer"),
    SlashCommand("model", "Choose another model", "[NAME|FILE]", module=_SETUP),
    SlashCommand("tools", "Switch tools on and off", "[NAME ...]", module=_SETUP),
    SlashCommand("mcp", "Add or remove MCP servers", "[NAME=COMMAND|URL|remove NAME]", module=_SETUP),
    SlashCommand("think", "Switch thinking", "on|off|auto", module=_SETUP),
    SlashCommand("sampling", "How words are drawn", "[temperature=0.2 ...]", module=_SETUP),
    SlashCommand("system", "The system prompt", "[TEXT]", module=_SETUP),
    SlashCommand("rules", "What may run without asking", module=_ABOUT),
    SlashCommand("status", "All about the model and the machine", module=_ABOUT),
    SlashCommand("theme", "Choose the colours", "[NAME]", module=_ABOUT),
    SlashCommand("settings", "The settings, and what is wrong there", module=_ABOUT),
    SlashCommand("voice", "Speak instead of writing", action="app.voice"),
    SlashCommand("quit", "Leave; the conversation is kept", action="app.quit"),
)
BY_NAME = {command.name: command for command in COMMANDS}


async def run_command(chat: ChatScreen, text: str) -> None:
    """Carry out ``/name arguments``. What goes wrong is one line on the screen."""
    from importlib import import_module

    name, _, arguments = text.removeprefix("/").partition(" ")
    command = BY_NAME[name]
    try:
        if command.action:
            await chat.run_action(command.action)
        else:
            await getattr(import_module(command.module), name)(chat, arguments.strip())
    except SprigError as e:
        chat.tell(str(e), kind="error")
