"""Whether a text is a command, which begins with a slash, or a message."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tui.settings.kinds import nearest

_WORD = re.compile(r"/([^\s/]+)(?=\s|\Z)")
_LIKE_A_COMMAND = re.compile(r"/[A-Za-z?][\w-]*(?: [^\n]*)?")


@dataclass(frozen=True, slots=True)
class SlashWord:
    """The first word of a command.

    Attributes:
        name: without the slash.
        known: whether there is such a command.
        nearest: when there is not, the one that was perhaps meant.
    """

    name: str
    known: bool = True
    nearest: str | None = None


def slash_word(text: str, known: Sequence[str]) -> SlashWord | None:
    """The command that a text gives; None if the text is a message, such as "/usr/bin/env is a path"."""
    found = _WORD.match(text)
    if found is None:
        return None
    word = found[1]
    if word in known:
        return SlashWord(word)
    if not _LIKE_A_COMMAND.fullmatch(text.rstrip()):
        return None
    meant = next((name for name in known if name.startswith(word)), None) or nearest(word, known)
    return SlashWord(word, False, meant)
