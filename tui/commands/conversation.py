"""Slash commands about the conversation. Each is called with the screen and what was written behind it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import SprigError

if TYPE_CHECKING:
    from tui.export.files import ExportFormat
    from tui.screens.chat import ChatScreen


async def help(chat: ChatScreen, arguments: str) -> None:
    from tui.screens.help import HelpScreen

    await chat.app.push_screen(HelpScreen(chat.sprig.commands, chat.sprig.settings.keys, chat.sprig.settings_path))


async def search(chat: ChatScreen, arguments: str) -> None:
    chat.close_sessions()
    chat.open_sessions(arguments)


async def edit(chat: ChatScreen, arguments: str) -> None:
    mine = [e for e in chat.conversation.entries if e.mine]
    if not mine:
        raise SprigError("there is no message to edit yet")
    if arguments and not (arguments.isdecimal() and 1 <= int(arguments) <= len(mine)):
        raise SprigError(f"there is no message {arguments!r}: yours are numbered from 1 to {len(mine)}")
    chat.messages.edit(mine[int(arguments) - 1 if arguments else -1])


async def editor(chat: ChatScreen, arguments: str) -> None:
    from textual.app import SuspendNotSupported

    from tui.prompt.editor import edited

    if chat.app.is_web:
        raise SprigError("an editor needs the terminal, and a browser has none: write here, or run sprig chat without --serve")
    text, wrong = arguments or chat.prompt.get_full(), None
    try:
        with chat.app.suspend():
            try:
                text = edited(text)
            except SprigError as e:  # the screen must come back first
                wrong = e
    except SuspendNotSupported:
        raise SprigError("an editor needs the whole terminal: run sprig chat without --inline") from None
    chat.prompt.text = text
    chat.prompt.focus()
    if wrong is not None:
        raise wrong


async def compact(chat: ChatScreen, arguments: str) -> None:
    _idle(chat)
    chat.sprig.talk.compact()


async def undo(chat: ChatScreen, arguments: str) -> None:
    from agent.tools.builtin.undo import in_words, undo
    from tui.widgets.messages.notice import Notice

    session = _session(chat)
    _idle(chat)
    told = in_words(await asyncio.to_thread(undo, session))
    chat.conversation.anchor()  # the view follows
    await chat.conversation.add(Notice(told))


async def copy(chat: ChatScreen, arguments: str) -> None:
    word, _, number = arguments.partition(" ")
    if not word:
        await chat.action_copy_answer()
        return
    if word != "code" or (number and not number.strip().isdecimal()):
        raise SprigError("/copy copies the last answer, /copy code its last code block, /copy code 2 its second")
    view = chat.messages.last_answer()
    if view is None:
        raise SprigError("there is no answer yet")
    await chat.messages.copy_code(view, int(number) if number else None)


async def export(chat: ChatScreen, arguments: str) -> None:
    from tui.export.files import export as write

    kinds: dict[str, ExportFormat] = {"": "md", "md": "md", "json": "json", "svg": "svg"}
    kind = kinds.get(arguments)
    if kind is None:
        raise SprigError("/export writes md, json or svg")
    session = _session(chat)
    path = await asyncio.to_thread(lambda: write(chat.sprig.store().open(session), kind, Path.cwd()))
    if chat.app.is_web:
        chat.app.deliver_binary(path)
    else:
        chat.tell(f"Written: {path}")


async def rename(chat: ChatScreen, arguments: str) -> None:
    if not arguments:
        raise SprigError("/rename needs the new title behind it")
    session = _session(chat)
    await asyncio.to_thread(lambda: chat.sprig.store().rename(session, arguments))
    chat.renamed(session, arguments)


async def delete(chat: ChatScreen, arguments: str) -> None:
    from tui.screens.dialog import ConfirmScreen

    session = _session(chat)
    _idle(chat)

    async def do(sure: bool | None) -> None:
        if sure:
            await asyncio.to_thread(lambda: chat.sprig.store().delete(session))
            chat.sprig.talk.load(None)
            chat.tell("The conversation was deleted.")

    await chat.app.push_screen(ConfirmScreen(f"Delete “{chat.session_title}” and all its messages?", "Delete"), do)


async def stop(chat: ChatScreen, arguments: str) -> None:
    if chat.busy:
        chat.action_leave()


def _idle(chat: ChatScreen) -> None:
    if chat.busy:
        raise SprigError("the agent is answering; stop it with Esc first")


def _session(chat: ChatScreen) -> str:
    if not chat.session:
        raise SprigError("this conversation has no message yet")
    return chat.session
