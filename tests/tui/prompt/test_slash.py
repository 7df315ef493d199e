"""A text that begins with a slash: a command, a mistyped one, or a message."""

from __future__ import annotations

import pytest

from tui.prompt.suggest import meant, slash_word

KNOWN = ["help", "model", "tools"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("/model tiny one", "model"),
        ("/model", "model"),
        ("/help\nme", "help"),
        ("/tols please", "tols"),
        ("/usr/bin/env is a path", None),
        ("/not a command\nbut two lines", None),
        ("/ is a slash", None),
        ("// twice", None),
        ("model", None),
        (" /model", None),
    ],
)
def test_a_command_is_told_from_a_message(text: str, word: str | None) -> None:
    assert slash_word(text, KNOWN) == word


def test_what_was_meant_begins_alike_or_looks_alike() -> None:
    assert [meant(word, KNOWN) for word in ("mo", "tols", "xyz")] == ["model", "tools", None]
