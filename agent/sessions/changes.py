"""What files held before a tool changed them, by session: so that a change can be taken back.

A folder of SPRIG_HOME for each session, for its owner alone, bounded in size, removed with the session.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from agent.errors import SprigError
from agent.files import atomic_write, write_error
from agent.home import home

MOST_BYTES = 32 << 20  # of one session; the oldest copies go first
MOST_CHANGES = 200
_ID = re.compile(r"[a-z0-9]{4,40}")


@dataclass(frozen=True, slots=True)
class FileChange:
    """One change of one file by a tool.

    Attributes:
        root, path: the folder of the tools, and the file below it.
        run: the run in which it was changed.
        after: SHA-256 of what the tool wrote.
        before: what the file held; None when there was none, or when it was too large to be kept.
        existed: whether there was a file.
        copy: where ``before`` is kept.
    """

    root: str
    path: str
    run: str
    after: str
    before: bytes | None
    existed: bool
    copy: Path | None = None


def keep(session: str, change: FileChange) -> None:
    """Remember a change that is about to be made. Raises SprigError when it cannot be kept."""
    folder = _folder(session)
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        numbers = [int(copy.name.partition("-")[0]) for copy in _copies(folder)]
    except OSError as e:
        raise write_error(e, folder) from None
    copy = folder / f"{max(numbers, default=0) + 1:06d}-{secrets.token_hex(3)}.old"
    facts = {"root": change.root, "path": change.path, "run": change.run, "after": change.after, "existed": change.existed}
    facts["kept"] = change.before is not None
    atomic_write(copy, change.before or b"", mode=0o600)
    atomic_write(copy.with_suffix(".json"), json.dumps(facts), mode=0o600)
    _bound(folder)


def last_changes(session: str) -> list[FileChange]:
    """What the last run that changed files has changed and nobody has taken back, the newest first."""
    found: list[FileChange] = []
    for copy in reversed(_copies(_folder(session))):
        change = _read(copy)
        if change is None:
            continue
        if found and change.run != found[0].run:
            break
        found.append(change)
    return found


def forget_change(change: FileChange, *, leave_copy: bool = False) -> None:
    """A change is not asked about again. With ``leave_copy`` what the file held stays where it is."""
    if change.copy is not None:
        with contextlib.suppress(OSError):
            change.copy.with_suffix(".json").unlink(missing_ok=True)
            if not leave_copy:
                change.copy.unlink(missing_ok=True)


def forget_changes(session: str) -> None:
    """The session is gone."""
    if _ID.fullmatch(session):
        shutil.rmtree(_folder(session), ignore_errors=True)


def _folder(session: str) -> Path:
    if not _ID.fullmatch(session):
        raise SprigError(f"{session[:40]!r} is no session's id")
    return home() / "undo" / session


def _copies(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*-*.old")) if folder.is_dir() else []


def _read(copy: Path) -> FileChange | None:
    try:
        facts = json.loads(copy.with_suffix(".json").read_bytes())
        before = copy.read_bytes() if facts["kept"] else None
        return FileChange(
            str(facts["root"]), str(facts["path"]), str(facts["run"]), str(facts["after"]), before, bool(facts["existed"]), copy
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):  # taken back, or cut off by a full disk
        return None


def _bound(folder: Path) -> None:
    copies = _copies(folder)
    sizes = [copy.stat().st_size for copy in copies]
    while len(copies) > MOST_CHANGES or sum(sizes) > MOST_BYTES:
        oldest = copies.pop(0)
        sizes.pop(0)
        with contextlib.suppress(OSError):
            oldest.with_suffix(".json").unlink(missing_ok=True)
            oldest.unlink()
