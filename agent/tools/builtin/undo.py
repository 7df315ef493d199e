"""Taking back what file tools changed, as far as the files still are what the tools wrote."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from agent.files import human_size
from agent.sessions.changes import FileChange, forget_change, last_changes
from agent.tools.builtin.changes import MAX_WRITE, digest, look
from agent.tools.builtin.root import Root, RootError


@dataclass(frozen=True, slots=True)
class UndoneFile:
    """What became of one file.

    Attributes:
        path: below the folder of the tools.
        done: whether it is as it was before.
        how: what was done, or why nothing was.
    """

    path: str
    done: bool
    how: str


def undo(session: str) -> tuple[UndoneFile, ...]:
    """Take back what the last run of a session that changed files has changed; empty when there is nothing.

    Only what ``write_file`` and ``edit_file`` wrote is known. A file that is no longer what they wrote stays as it is.
    """
    found: dict[tuple[str, str], UndoneFile] = {}
    for change in last_changes(session):
        place = change.root, change.path
        found[place] = _take_back(change)
        forget_change(change, leave_copy=not found[place].done)
    return tuple(found.values())


def in_words(undone: tuple[UndoneFile, ...]) -> str:
    """What became of the files, a line each; untrusted."""
    lines = [f"{one.path}: {one.how}" if one.done else f"{one.path} stays: it {one.how}" for one in undone]
    return "\n".join([*(lines or ["No tool has written a file that could go back."]), "What commands changed stays as it is."])


def _take_back(change: FileChange) -> UndoneFile:
    try:
        root = Root(Path(change.root))
        now = look(root, change.path)
        if now.size is None and not change.existed:
            return UndoneFile(change.path, True, "is gone already")
        if now.size is not None and change.before is not None and now.data == change.before:
            return UndoneFile(change.path, True, "is as it was already")
        if now.state != change.after:
            return UndoneFile(change.path, False, _why(change, "is gone" if now.size is None else "was changed since"))
        if not change.existed:
            parts = root.check_writable(change.path)
            with root.folder(parts[:-1]) as folder:
                os.unlink(parts[-1], dir_fd=folder)
            return UndoneFile(change.path, True, "removed, for a tool had made it")
        if change.before is None:
            return UndoneFile(change.path, False, f"held more than {human_size(MAX_WRITE)}, of which no copy is kept")
        root.write(change.path, change.before)
        if digest(change.before) != look(root, change.path).state:
            return UndoneFile(change.path, False, _why(change, "was changed meanwhile"))
    except RootError as e:
        return UndoneFile(change.path, False, _why(change, f"cannot be reached ({e})"))
    except OSError as e:
        return UndoneFile(change.path, False, _why(change, f"cannot be changed: {e.strerror}"))
    return UndoneFile(change.path, True, "put back")


def _why(change: FileChange, what: str) -> str:
    """Why a file stays as it is, and where what it held before is."""
    return f"{what}; what it held before is in {change.copy}" if change.before is not None else what
