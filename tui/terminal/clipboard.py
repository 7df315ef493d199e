"""Copying a text to the clipboard of the person who looks at the screen, wherever that screen is.

Over SSH only the terminal itself reaches that clipboard, by the escape sequence OSC 52 (xterm, ctlseqs). It answers nothing, so
what comes back says whether a program took the text or whether it was only sent to a terminal.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textual.app import App

from agent.errors import SprigError
from agent.files import atomic_write, human_size
from agent.home import home
from agent.sessions.records import clean
from agent.text import display, verbatim

# hterm and others drop a sequence of more than 100,000 characters: base64 of so many bytes still fits.
TERMINAL_LIMIT = 74_994
# xterm.js, which draws the page of textual-serve, drops 10,000,000 characters.
BROWSER_LIMIT = 7_000_000
# GNU Screen takes strings of 256 bytes in its oldest versions that are still met; two bytes stand on each side of a part.
_SCREEN_PART = 252
_SECONDS = 3.0  # termux-clipboard-set waits for ever where the app Termux:API is missing


async def copy(app: App[Any], text: str) -> str:
    """Put a text on the clipboard. Never raises and never blocks the loop.

    Returns:
        What happened, in one line for a person; safe to print.
    """
    text = verbatim(clean(text))
    if not text:
        return "There is nothing to copy."
    app._clipboard = text  # what Ctrl+V inserts within the app, also when no terminal takes it
    data = text.encode()
    if app.is_web:
        return _through_browser(app, text, data)
    taken = [name for command in _programs(os.environ) if (name := await _handed_to(command, data))]
    if taken == ["tmux"] and len(data) > TERMINAL_LIMIT:
        return f"Copied {_amount(text)} within tmux (paste there: prefix, ]); a terminal's clipboard takes less."
    if taken:
        return f"Copied {_amount(text)} ({' and '.join(taken)})."
    if len(data) > TERMINAL_LIMIT:
        return await _into_file(text, len(data))
    _write(app, terminal_sequence(data, os.environ))
    hint = " If nothing arrives: tmux set -s set-clipboard on" if _in_tmux(os.environ) else ""
    return f"Sent {_amount(text)} to the terminal's clipboard.{hint}"


def terminal_sequence(data: bytes, environment: Mapping[str, str]) -> str:
    """OSC 52 for the terminal that ``environment`` tells of, wrapped where a multiplexer stands before it."""
    plain = f"\x1b]52;c;{base64.b64encode(data).decode()}\a"
    if _in_tmux(environment):
        # tmux takes the plain one with set-clipboard on, and passes the other one on with allow-passthrough, which was always
        # so before 3.3. By default (set-clipboard external) it heeds neither from an application.
        return plain + "\x1bPtmux;" + plain.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    if environment.get("STY"):
        parts = [plain[i : i + _SCREEN_PART] for i in range(0, len(plain), _SCREEN_PART)]
        return "".join(f"\x1bP{part}\x1b\\" for part in parts)
    return plain


def _in_tmux(environment: Mapping[str, str]) -> bool:
    # Over SSH the variable of the tmux at home is not there, but the name of its terminal is.
    return bool(environment.get("TMUX")) or environment.get("TERM", "").startswith("tmux")


def _programs(environment: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The programs to hand a text to. All of them: a tmux may be looked at from here and from afar at once."""
    found: list[tuple[str, ...]] = []
    if not (environment.get("SSH_CONNECTION") or environment.get("SSH_TTY")):
        for there, command in (
            ("TERMUX_VERSION" in environment, ("termux-clipboard-set",)),
            (sys.platform == "darwin", ("pbcopy",)),
            (bool(environment.get("WAYLAND_DISPLAY")), ("wl-copy",)),
            (bool(environment.get("DISPLAY")), ("xclip", "-selection", "clipboard")),
            (bool(environment.get("DISPLAY")), ("xsel", "--clipboard", "--input")),
        ):
            if there and shutil.which(command[0]):
                found.append(command)
                break
    if environment.get("TMUX") and shutil.which("tmux"):
        # tmux 3.2 and later hand the text to their terminal themselves, also where they heed no application (set-clipboard
        # external, the default).
        found.append(("tmux", "load-buffer", "-w", "-"))
    return found


async def _handed_to(command: tuple[str, ...], data: bytes) -> str:
    """The program's name when it took the text, else nothing."""
    nowhere = asyncio.subprocess.DEVNULL
    try:
        # xclip and wl-copy stay behind to serve the text: they keep no pipe of ours, and outlive this terminal.
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=nowhere, stderr=nowhere, start_new_session=True
        )
    except OSError:
        return ""
    try:
        await asyncio.wait_for(process.communicate(data), _SECONDS)
    except (OSError, TimeoutError):
        return ""
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return command[0] if process.returncode == 0 else ""


def _through_browser(app: App[Any], text: str, data: bytes) -> str:
    if len(data) > BROWSER_LIMIT:
        app.deliver_text(io.StringIO(text), save_filename="copied.txt")
        return f"{human_size(len(data))} is too much for the clipboard: your browser gets it as copied.txt."
    _write(app, terminal_sequence(data, {}))
    return f"Sent {_amount(text)} to the browser's clipboard; browsers take it only over https or from localhost."


def _write(app: App[Any], sequence: str) -> None:
    if (driver := app._driver) is not None:
        driver.write(sequence)


async def _into_file(text: str, size: int) -> str:
    path = home() / "copied.txt"
    try:
        await asyncio.to_thread(_save, path, text)
    except (SprigError, OSError) as e:
        return f"Not copied: {human_size(size)} is too much for a terminal's clipboard, and {display(str(e))}"
    much = f"{human_size(size)} is too much for a terminal's clipboard ({human_size(TERMINAL_LIMIT)})"
    return f"{much}: it is in {display(str(path))}"


def _save(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text)


def _amount(text: str) -> str:
    lines = len(text.splitlines())
    if lines > 1:
        return f"{lines:,} lines"
    return "1 character" if len(text) == 1 else f"{len(text):,} characters"
