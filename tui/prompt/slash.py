"""Whether a text is a command, which begins with a slash, or a message."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent.text.nearest import nearest

_WORD = re.compile(r"/([^\s/]+)(?=\s|\Z)")
_LIKE_A_COMMAND = re.compile(r"/[A-Za-z?][\w-]*(?: [^\n]*)?")


def slash_word(text: str, known: Sequence[str]) -> str | None:
    """The first word of a command, which need not be a known one; None if the text is a message: "/usr/bin/env is a path"."""
    found = _WORD.match(text)
    is_command = found is not None and (found[1] in known or _LIKE_A_COMMAND.fullmatch(text.rstrip()))
    return found[1] if found is not None and is_command else None


def meant(word: str, known: Sequence[str]) -> str | None:
    """The command that was probably meant."""
    return next((name for name in known if name.startswith(word)), None) or nearest(word, known)
