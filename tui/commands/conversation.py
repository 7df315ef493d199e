"""Slash commands about the conversation. Each is called with the screen and what was written behind it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import SprigError

if TYPE_CHECKING:
    from tui.export.files import Kind
    from tui.screens.chat import ChatScreen


async def help(screen: ChatScreen, arguments: str) -> None:
    from tui.screens.help import HelpScreen

    await screen.app.push_screen(HelpScreen())


async def new(screen: ChatScreen, arguments: str) -> None:
    screen.action_new()


async def sessions(screen: ChatScreen, arguments: str) -> None:
    screen.action_sessions()


async def search(screen: ChatScreen, arguments: str) -> None:
    screen.close_sessions()
    screen.open_sessions(arguments)


async def again(screen: ChatScreen, arguments: str) -> None:
    await screen.messages.again()


async def edit(screen: ChatScreen, arguments: str) -> None:
    mine = [e for e in screen.conversation.entries if e.mine]
    if not mine:
        raise SprigError("there is no message to edit yet")
    if arguments and not (arguments.isdecimal() and 1 <= int(arguments) <= len(mine)):
        raise SprigError(f"there is no message {arguments!r}: yours are numbered from 1 to {len(mine)}")
    screen.messages.edit(mine[int(arguments) - 1 if arguments else -1])


async def copy(screen: ChatScreen, arguments: str) -> None:
    word, _, number = arguments.partition(" ")
    if not word:
        await screen.action_copy_answer()
        return
    if word != "code" or (number and not number.strip().isdecimal()):
        raise SprigError("/copy copies the last answer, /copy code its last code block, /copy code 2 its second")
    view = screen.messages.last_answer()
    if view is None:
        raise SprigError("there is no answer yet")
    await screen.messages.copy_code(view, int(number) if number else None)


async def export(screen: ChatScreen, arguments: str) -> None:
    from tui.export.files import export as write

    kinds: dict[str, Kind] = {"": "md", "md": "md", "json": "json", "svg": "svg"}
    kind = kinds.get(arguments)
    if kind is None:
        raise SprigError("/export writes md, json or svg")
    session = _session(screen)
    path = await asyncio.to_thread(lambda: write(screen.sprig.store().open(session), kind, Path.cwd()))
    if not await screen.sprig.hand_over(path):
        screen.tell(f"Written: {path}")


async def rename(screen: ChatScreen, arguments: str) -> None:
    if not arguments:
        raise SprigError("/rename needs the new title behind it")
    session = _session(screen)
    await asyncio.to_thread(lambda: screen.sprig.store().rename(session, arguments))
    screen.renamed(session, arguments)


async def delete(screen: ChatScreen, arguments: str) -> None:
    from tui.screens.confirm import ConfirmScreen

    session = _session(screen)
    if screen.busy:
        raise SprigError("the agent is answering; stop it with Esc first")

    async def do(sure: bool | None) -> None:
        if sure:
            await asyncio.to_thread(lambda: screen.sprig.store().delete(session))
            screen.sprig.talk.load(None)
            screen.tell("The conversation was deleted.")

    await screen.app.push_screen(ConfirmScreen(f"Delete “{screen.session_title}” and all its messages?", "Delete"), do)


async def stop(screen: ChatScreen, arguments: str) -> None:
    if screen.busy:
        screen.action_leave()


async def voice(screen: ChatScreen, arguments: str) -> None:
    screen.action_voice()


async def quit(screen: ChatScreen, arguments: str) -> None:
    screen.app.exit()


def _session(screen: ChatScreen) -> str:
    if not screen.session:
        raise SprigError("this conversation has no message yet")
    return screen.session
