"""Which texts are commands, and what can be completed at the cursor: a command behind a slash, a file behind an @."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agent.text import display
from agent.text.nearest import nearest

KnownCommand = tuple[str, str, str]  # name, what it is about, a hint at its arguments
_WORD = re.compile(r"/([^\s/]+)(?=\s|\Z)")
_LIKE_A_COMMAND = re.compile(r"/[A-Za-z?][\w-]*(?: [^\n]*)?")
_COMMAND = re.compile(r"/([^\s/]*)")
_FILE = re.compile(r"""(?:^|(?<=[\s(\[{<'"`]))@(?:"(?P<quoted>[^"]*)|(?P<bare>[^\s"@]*))\Z""")
_LOOKED_BACK = 300  # characters before the cursor


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One line of the list.

    Attributes:
        value: what is put in place of what was typed.
        label: its name in the list, safe to print.
        about: more about it, safe to print.
        final: it is complete, so that Enter may send it at once.
        is_path: of a label that is too long the end is shown, where the name is.
    """

    value: str
    label: str
    about: str = ""
    final: bool = False
    is_path: bool = False

    @property
    def is_command(self) -> bool:
        return self.label.startswith("/") and not self.is_path


@dataclass(frozen=True, slots=True)
class Trigger:
    """What is being typed: its kind, the letters so far, and the column where the whole of it starts."""

    kind: Literal["command", "file"]
    query: str
    start: int


def slash_word(text: str, known: Sequence[str]) -> str | None:
    """The first word of a command, which need not be a known one; None if the text is a message: "/usr/bin/env is a path"."""
    found = _WORD.match(text)
    is_command = found is not None and (found[1] in known or _LIKE_A_COMMAND.fullmatch(text.rstrip()))
    return found[1] if found is not None and is_command else None


def meant(word: str, known: Sequence[str]) -> str | None:
    """The command that was probably meant."""
    return next((name for name in known if name.startswith(word)), None) or nearest(word, known)


def trigger(before: str, row: int) -> Trigger | None:
    """What is being completed, from the text before the cursor in its line."""
    if row == 0 and (found := _COMMAND.fullmatch(before[:_LOOKED_BACK])) and len(before) <= _LOOKED_BACK:
        return Trigger("command", found[1], 0)
    tail = before[-_LOOKED_BACK:]
    file = _FILE.search(tail, max(0, tail.rfind("@")))
    if file is None:
        return None
    start = len(before) - len(tail) + file.start()
    return Trigger("file", file["quoted"] if file["quoted"] is not None else file["bare"], start)


def commands(known: Sequence[KnownCommand], query: str) -> list[Suggestion]:
    """Commands that begin with it, then those that have it within, then those that are about it."""
    low = query.lower()

    def rank(command: KnownCommand) -> int:
        name, about, _ = command
        return 0 if name.startswith(low) else 1 if low in name else 2 if len(low) > 2 and low in about.lower() else 3

    ranked = sorted((command for command in known if rank(command) < 3), key=rank)
    return [
        Suggestion(f"/{name} " if hint else f"/{name}", display(f"/{name} {hint}".rstrip()), display(about), final=not hint)
        for name, about, hint in ranked
    ]


def file_suggestion(path: str) -> Suggestion:
    """A path as it is put behind the @; a folder is left open, so that its files can follow."""
    from tui.prompt.attach import mention  # not part of the first paint

    if path.endswith("/"):
        return Suggestion(mention(path).removesuffix('"'), display(path), is_path=True)
    return Suggestion(f"{mention(path)} ", display(path), is_path=True)


def remembered(entries: Sequence[tuple[str, str]], query: str, limit: int) -> list[Suggestion]:
    """Sent texts that have all the words, the newest first. ``entries``: (text, the same in lower case), the oldest first."""
    words = query.lower().split()
    found: dict[str, Suggestion] = {}
    for text, low in reversed(entries):
        if text not in found and all(word in low for word in words):
            lines = text.strip().splitlines()
            found[text] = Suggestion(text, display(lines[0][:200]), f"+ {len(lines) - 1} lines" if len(lines) > 1 else "")
            if len(found) == limit:
                break
    return list(found.values())
