"""A session as a file: Markdown to read, JSON to keep, SVG to show. Nothing that is there is ever overwritten."""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agent.errors import OutputError
from agent.files import atomic_write
from agent.text import display, json_text, verbatim
from agent.text.result_words import bare_result

if TYPE_CHECKING:
    from agent.sessions.records import StoredMessage
    from agent.sessions.store import Session

ExportFormat = Literal["md", "json", "svg"]
_LONGEST = 80  # bytes of a name: file systems take 255, and encrypted ones half of that
_NAMES = 999


def export(session: Session, kind: ExportFormat, folder: Path) -> Path:
    """Write a session into a folder, in a new file that is named by its title.

    Args:
        session: whose conversation; Markdown and SVG hold the current branch, JSON holds all.
        kind: md, json or svg.
        folder: must be there.

    Returns:
        The file. It is whole, also after a power cut.

    Raises:
        SessionError: the session cannot be read.
        OutputError: the file cannot be written.
    """
    text = _text(session, kind)
    path = _claim(folder, _slug(session.info.title) or f"session-{session.id}", kind)
    try:
        atomic_write(path, text)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return path


def message_markdown(stored: StoredMessage) -> str:
    """One message for the clipboard: what was said, as it was written; of calls, their names and arguments.

    Control characters are shown as signs: pasted into a terminal, they would be obeyed.
    """
    m = stored.message
    text = bare_result(m.text) if m.role == "tool" else m.text
    parts = [text] if text else []
    for call in m.calls:
        arguments = json.dumps(dict(call.arguments), ensure_ascii=False, indent=2)
        fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", arguments)), 3)
        parts.append(f"{call.name}\n\n{fence}json\n{arguments}\n{fence}")
    return verbatim("\n\n".join(parts) or m.thinking)


def _text(session: Session, kind: ExportFormat) -> str:
    if kind == "json":
        return json_text(session.export_json(), indent=1) + "\n"
    if kind == "md":
        return session.export_markdown()
    from tui.export.svg import session_svg

    return session_svg(session.info.title or "Sprig", session.messages())


def _slug(title: str) -> str:
    """Letters and digits of any script, joined by hyphens: no separator, no dot, nothing that a shell obeys."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", title).lower())
    raw = "-".join(words).encode("utf-8", "ignore")
    return raw[:_LONGEST].decode("utf-8", "ignore").strip("-")


def _claim(folder: Path, stem: str, kind: ExportFormat) -> Path:
    """Make an empty file under a name that was free: another process then takes another one. Raises OutputError."""
    for number in range(1, _NAMES + 1):
        path = folder / (f"{stem}.{kind}" if number == 1 else f"{stem}-{number}.{kind}")
        try:
            path.open("x").close()
        except FileExistsError:
            continue
        except FileNotFoundError:
            raise OutputError(f"there is no folder {display(str(folder))} to export to: name one that is there") from None
        except OSError as e:
            raise OutputError(f"cannot write {display(path.name)} to {display(str(folder))}: {e.strerror or e}") from None
        return path
    raise OutputError(f"{display(str(folder))} already holds {_NAMES} exports named {stem}: move some away")
