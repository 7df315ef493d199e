"""Slash commands that show how things stand, and those about the screen: rules, status, colours, settings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.errors import SprigError
from agent.files import human_size

if TYPE_CHECKING:
    from agent.approval.policy import Rule
    from agent.events import Usage
    from tui.screens.chat import ChatScreen


async def rules(chat: ChatScreen, arguments: str) -> None:
    from tui.screens.details import DetailsScreen

    note = f"A deny that fits wins; else the rule that says most. To change them: [[rules]] in {chat.sprig.settings_path}"
    await chat.app.push_screen(DetailsScreen(list(_rules(chat)), "What may run without asking", note))


def _rules(chat: ChatScreen) -> Iterator[tuple[str, str]]:
    kept, now = chat.sprig.settings.rules, chat.sprig.talk.rules
    file = chat.sprig.settings_path.name
    extra = [rule for rule in now if rule not in kept]
    here = chat.sprig.talk.session_rules
    for title, some in ((f"Rules of {file}", kept), ("Until you leave", extra), ("In this conversation", here)):
        yield title, ""
        if not some:
            yield "none", "·"
        for rule in some:
            yield rule.action, _rule(rule)
    facts = chat.facts
    if facts is not None:
        yield "Where no rule speaks", ""
        for action, word in (("allow", "runs"), ("ask", "asks first"), ("deny", "denied")):
            names = [tool.name for tool in facts.tools if tool.approval == action]
            if names:
                yield word, ", ".join(names)
        yield "commands", f"confined: {facts.confinement}"


def _rule(rule: Rule) -> str:
    even = ", even after untrusted text" if rule.even_after_untrusted else ""
    if rule.argument is None:
        return f"{rule.tool}{even}"
    about = "with exactly" if rule.argument == "*" else f"where {rule.argument} {'is' if rule.exact else 'fits'}"
    return f"{rule.tool} {about} {rule.pattern}{even}"


async def status(chat: ChatScreen, arguments: str) -> None:
    from tui.screens.details import DetailsScreen
    from tui.status.details import details

    rows = [*details(chat.work.status()), *_more(chat)]
    await chat.app.push_screen(DetailsScreen(rows, "Model and machine"))


def _more(chat: ChatScreen) -> Iterator[tuple[str, str]]:
    """What the status line does not know. Rows without a value are left out."""
    facts, usage = chat.facts, chat.work.usage
    if facts is not None:
        yield "File", facts.path
        yield "Made for", f"{facts.trained:,} tokens of context; there is room for {facts.context:,}"
        yield "Memory planned", human_size(facts.memory) if facts.memory else "not known"
        yield "Thinking", "can be switched (/think)" if facts.thinks else "cannot be switched"
        yield "Tools", ", ".join(tool.name for tool in facts.tools) or "none"
        yield "Confinement", facts.confinement or "none"
        for problem in facts.problems:
            yield "Problem", problem
    if usage is not None:
        yield "Last answer", _cost(usage)
    yield "Folder of tools", str(chat.setup.root)
    yield "Conversation", chat.session or "not kept yet"
    yield "Settings", str(chat.sprig.settings_path)


def _cost(usage: Usage) -> str:
    read = f"{usage.prompt_tokens:,} tokens of prompt, {usage.cached_tokens:,} of them cached"
    written = f"{usage.generated_tokens:,} written in {usage.seconds:.1f} s"
    return f"{read}; {written}, the first after {usage.first_token_seconds:.1f} s"


async def theme(chat: ChatScreen, arguments: str) -> None:
    from agent.text.nearest import nearest
    from tui.themes import names

    def use(name: str | None) -> None:
        if name is not None:
            sprig = chat.sprig
            chat.app.theme = name
            sprig.settings = replace(sprig.settings, screen=replace(sprig.settings.screen, theme=name))
            sprig.keep("screen.theme", name)
            chat.tell(f"Theme {name}; kept in {sprig.settings_path.name}.")

    if not arguments:
        from tui.screens.theme import ThemeScreen

        await chat.app.push_screen(ThemeScreen(), use)
        return
    if arguments not in names():
        meant = nearest(arguments, names())
        hint = f"did you mean {meant}?" if meant else "/theme shows them all"
        raise SprigError(f"there is no theme {arguments[:60]!r}; {hint}")
    use(arguments)


async def settings(chat: ChatScreen, arguments: str) -> None:
    """Where the file is. It is read again, and what it changes holds at once where that can be."""
    from tui.actions import action_ids
    from tui.settings.values import chat_settings

    path = chat.sprig.settings_path
    file = chat_settings(path, action_ids())
    if await asyncio.to_thread(file.create):
        chat.tell(f"Written, with every setting explained: {path}\nChange it in an editor; /settings then reads it again.")
        return
    try:
        found = await asyncio.to_thread(file.load)
    except SprigError as e:
        raise SprigError(f"{e}\nNothing is changed. The file: {path}") from None
    changed, later = chat.sprig.apply(found)
    words = [f"Settings: {path}"]
    if changed:
        words.append(f"Changed: {', '.join(changed)}.")
    if later:
        words.append(f"From the next start on: {', '.join(later)}.")
    if not changed and not later:
        words.append("Nothing in it has changed.")
    chat.tell("\n".join(words))
