"""A message is written in a person's own editor: what comes back is safe, and what goes wrong loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import SprigError
from tui.prompt.editor import edited


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of an editor: a shell script that gets the file."""
    script = tmp_path / "my editor"
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"'{script}' --wait")
    return script


def says(script: Path, lines: str) -> None:
    script.write_text(f"#!/bin/sh\nshift\n{lines}\n")
    script.chmod(0o755)


def test_what_is_saved_is_the_text(editor: Path, tmp_path: Path) -> None:
    says(editor, f'cp "$1" "{tmp_path}/seen"; stat -c %a "$(dirname "$1")" > "{tmp_path}/mode"; printf "more\\n\\n" >> "$1"')
    assert edited("first\nsecond") == "first\nsecond\nmore"
    assert (tmp_path / "seen").read_text() == "first\nsecond\n"
    assert (tmp_path / "mode").read_text() == "700\n"
    says(editor, ": > $1")
    assert edited("gone") == ""


def test_what_a_terminal_would_obey_is_shown(editor: Path) -> None:
    says(editor, 'printf "a\\033[2Jb\\377\\r\\nc" > "$1"')
    assert edited("") == "a␛[2Jb\ufffd\nc"


def test_visual_comes_first(editor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says(editor, 'echo editor > "$1"')
    other = editor.with_name("other")
    other.write_text('#!/bin/sh\necho visual > "$1"\n')
    other.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(other))
    assert edited("") == "visual"


@pytest.mark.parametrize(
    ("command", "said"),
    [("/nowhere/editor", "cannot be started"), ("false", "ended with status 1"), ("'", "no editor is named"), ("rm", "read")],
)
def test_what_goes_wrong_is_one_line(command: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", command)
    with pytest.raises(SprigError, match=said) as error:
        edited("x")
    assert "\n" not in str(error.value)
