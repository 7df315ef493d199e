"""A person's own editor on a text: $VISUAL or $EDITOR, with the terminal for itself."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from agent.errors import SprigError
from tui.prompt.pastes import MOST, clean

_USUAL = ("sensible-editor", "nano", "vi")


def editor_command() -> list[str]:
    """The words that start the editor. SprigError when there is none."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR") or next(filter(shutil.which, _USUAL), "")
    try:
        words = shlex.split(named)
    except ValueError:
        words = []
    if not words:
        raise SprigError("no editor is named: set EDITOR, as in export EDITOR=nano")
    return words


def edited(text: str) -> str:
    """What a person makes of a text in the editor, safe to show; it is waited for. SprigError when that is nothing to be used."""
    words = editor_command()
    with tempfile.TemporaryDirectory(prefix="sprig-") as folder:  # for its owner alone
        path = Path(folder, "message.md")
        path.write_text(text + "\n" if text else "")
        before = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl+C is the editor's; unlike SIG_IGN it is not inherited
        try:
            status = subprocess.run([*words, str(path)], check=False).returncode
        except OSError as e:
            raise SprigError(
                f"the editor {words[0]} cannot be started: {e.strerror}; set EDITOR, as in export EDITOR=nano"
            ) from None
        finally:
            signal.signal(signal.SIGINT, before)
        if status != 0:
            raise SprigError(f"the editor {words[0]} ended with status {status}: the text is as it was")
        try:
            if path.stat().st_size > 4 * MOST:
                raise SprigError("the text is longer than any message")
            return "".join(clean(path.read_text("utf-8", "replace"))).rstrip("\n")
        except OSError as e:
            raise SprigError(f"what was edited cannot be read: {e.strerror}") from None
