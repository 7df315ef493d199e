"""What a call would change in a file, and what is there before: so that a person sees it, and it can be taken back."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass

from agent.errors import SprigError
from agent.files import human_size
from agent.sessions.changes import FileChange, keep
from agent.text.line_diff import unified
from agent.tools.builtin.root import MissingError, Root
from agent.tools.preview import Preview
from agent.tools.result import ToolContext, ToolError

log = logging.getLogger(__name__)

MAX_WRITE = 1 << 20  # bytes of a file that are compared, kept, and written at once


@dataclass(frozen=True, slots=True)
class Found:
    """A file before it is changed.

    Attributes:
        size: in bytes; None, there is no file.
        data: what it holds; None where there is none, or more than MAX_WRITE.
        state: changes with the content, or with the file where that is too large to be read.
    """

    size: int | None = None
    data: bytes | None = None
    state: str = "absent"

    @property
    def text(self) -> str | None:
        """What it holds, where that is a text."""
        if self.data is None or b"\0" in self.data:
            return None
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            return None


def look(root: Root, path: str) -> Found:
    """What a tool would write over. Raises RootError when it may not be written, is no file, or cannot be read."""
    root.check_writable(path)
    try:
        with root.file(path) as fd, os.fdopen(os.dup(fd), "rb") as f:
            data = f.read(MAX_WRITE + 1)
            if len(data) <= MAX_WRITE:
                return Found(len(data), data, digest(data))
            status = os.fstat(fd)
            return Found(status.st_size, None, f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}")
    except MissingError:
        return Found()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def previewed(path: str, found: Found, after: str) -> Preview:
    """The question's words and diff for a file that is to hold ``after``."""
    diff, _ = unified(found.text or "", after, path, whole=True)
    marks = [line[:1] for line in diff.split("\n")[2:]]
    removed, added = marks.count("-"), marks.count("+")
    if found.size is None:
        change = f"new file, {_lines(added)}"
    elif found.data is None:
        change = f"replaces a file of {human_size(found.size)}, too large to compare, with {_lines(added)}"
    elif found.text is None:
        change = f"replaces a file that is no text ({human_size(found.size)}) with {_lines(added)}"
    elif removed and added:
        change = f"replaces {_lines(removed)} with {added}"
    elif removed:
        change = f"removes {_lines(removed)}" if after else f"empties it: removes {_lines(removed)}"
    else:
        change = f"adds {_lines(added)}" if added else "changes nothing"
    return Preview(change, diff, found.state)


def check_unchanged(path: str, found: Found, context: ToolContext) -> None:
    """What was shown is what is written over. Raises ToolError when a person has said yes to something else."""
    if context.shown and context.shown != found.state:
        raise ToolError(f"{path} was changed after the question was shown, so nothing was written: read it again")


def keep_before(root: Root, path: str, found: Found, data: bytes, context: ToolContext) -> None:
    """Keep what is there, so that the change can be taken back. Without a session, or room, it cannot be; the call goes on."""
    if not context.session or found.data == data:
        return
    change = FileChange(
        str(root.path), "/".join(root.parts(path)), context.run, digest(data), found.data, found.size is not None
    )  # fmt: skip
    try:
        keep(context.session, change)
    except SprigError as e:
        log.warning("undo: a file's content before a change could not be kept: %s", e)


def _lines(count: int) -> str:
    return f"{count:,} line{'' if count == 1 else 's'}"
