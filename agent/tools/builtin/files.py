"""The file tools: read, list, search, write and edit below one root."""

from __future__ import annotations

import fnmatch
import itertools
import os
import stat
from typing import Any

from agent.files import human_size
from agent.text.line_diff import unified
from agent.tools.builtin.changes import MAX_WRITE, Found, check_unchanged, keep_before, look, previewed
from agent.tools.builtin.lookup import ask_child
from agent.tools.builtin.root import Root
from agent.tools.preview import Preview
from agent.tools.result import ToolContext, ToolError, ToolResult, clean, describe_bytes

MAX_READ = 60_000  # bytes that one call shows
MAX_SCAN = 1 << 26  # bytes that are skipped to reach a line
MAX_ENTRIES = 200
MAX_SEEN = 200_000  # entries that are looked at for a pattern
_SEARCH_SECONDS = 10.0


class FileTools:
    """The tools' functions over one root; ``agent.tools.builtin.catalogue`` makes tools of them."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def read_file(self, path: str, start: int = 1, lines: int = 200) -> str:
        """Read a text file.

        Args:
            start: first line
            lines: how many
        """
        if start < 1 or lines < 1:
            raise ToolError("start and lines count from 1")
        with self._root.file(path) as fd, os.fdopen(os.dup(fd), "rb") as f:
            size = os.fstat(fd).st_size
            head = f.read(8192)
            if b"\0" in head:
                return describe_bytes(head, size)
            f.seek(0)
            return _numbered(f, start, lines)

    def list_files(self, path: str = ".", pattern: str = "") -> str:
        """List a folder, or find files below it by a pattern like *.py.

        Args:
            pattern: looks in all folders below
        """
        parts = self._root.parts(path)
        with self._root.folder(parts) as fd:
            found, more = _matching(fd, pattern) if pattern else _entries(fd)
        return "\n".join([*(found or ["nothing matches" if pattern else "the folder is empty"]), *more])

    def search_files(self, text: str, context: ToolContext, path: str = ".") -> str:
        """Find lines that contain a text or match a regular expression.

        Args:
            path: file or folder to look in
        """
        if not text:
            raise ToolError("the text to look for is empty")
        self._root.parts(path)
        job = {"path": path, "text": text, "seconds": _SEARCH_SECONDS - 1}
        limit = _SEARCH_SECONDS
        return str(ask_child("search_child:search", job, self._root, seconds=limit, cpu=int(limit), cancelled=context.cancelled))

    def write_file(self, path: str, content: str, context: ToolContext) -> ToolResult:
        """Write a text file, replacing what is there."""
        found, data = look(self._root, path), _encoded(content)
        return self._change(path, found, content, data, "wrote" if found.size is not None else "created", context)

    def preview_write_file(self, path: str, content: str) -> Preview:
        """What ``write_file`` would change. Raises ToolError or RootError where it could not be done."""
        found, _ = look(self._root, path), _encoded(content)
        return previewed(path, found, content)

    def edit_file(self, path: str, old: str, new: str, context: ToolContext) -> ToolResult:
        """Replace a passage of a text file.

        Args:
            old: the exact text, which must occur once
        """
        found, after = self._edited(path, old, new)
        return self._change(path, found, after, _encoded(after), "edited", context)

    def preview_edit_file(self, path: str, old: str, new: str) -> Preview:
        """What ``edit_file`` would change. Raises ToolError or RootError where it could not be done."""
        found, after = self._edited(path, old, new)
        _encoded(after)
        return previewed(path, found, after)

    def _edited(self, path: str, old: str, new: str) -> tuple[Found, str]:
        found = look(self._root, path)
        before = found.text
        if before is None:
            what = "does not exist" if found.size is None else f"is no UTF-8 text of at most {human_size(MAX_WRITE)}"
            raise ToolError(f"{path} {what}: it cannot be edited")
        if not old:
            raise ToolError("old is empty: give the text to replace")
        if old not in before and "\r\n" in before:
            old, new = old.replace("\n", "\r\n"), new.replace("\n", "\r\n")
        count = before.count(old)
        if count != 1:
            raise ToolError(_how_often(before, old, count))
        return found, before.replace(old, new)

    def _change(self, path: str, found: Found, after: str, data: bytes, verb: str, context: ToolContext) -> ToolResult:
        check_unchanged(path, found, context)
        keep_before(self._root, path, found, data, context)
        self._root.write(path, data)
        return _changed(path, found.text, after, verb)


def _encoded(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    if len(data) > MAX_WRITE:
        raise ToolError(f"this is {human_size(len(data))}; a file may get {human_size(MAX_WRITE)} at once")
    return data


def _numbered(f: Any, start: int, count: int) -> str:
    """Lines ``start`` to ``start + count - 1``, read in bounded pieces, with a last line that says what is missing."""
    number, scanned, at_line_start = 1, 0, True
    while number < start:
        piece = f.readline(1 << 16)
        scanned += len(piece)
        if not piece:
            return f"[the file has {number - 1 if at_line_start else number} lines]"
        if scanned > MAX_SCAN:
            return f"[line {start} lies beyond the first {human_size(MAX_SCAN)} of the file, which is as far as this reads]"
        at_line_start = piece.endswith(b"\n")
        number += at_line_start
    shown = bytearray()
    last = start + count
    while number < last and len(shown) < MAX_READ:
        piece = f.readline(MAX_READ - len(shown))
        if not piece:
            break
        shown += piece
        number += piece.endswith(b"\n")
    text = clean(shown.decode("utf-8", "replace"))
    if f.read(1):
        rest = f"from line {number} on" if number > start else "within this long line"
        return f"{text}\n[more {rest}]" if not text.endswith("\n") else f"{text}[more {rest}]"
    return text or "[the file is empty]" if start == 1 or text else f"[the file has {number - 1} lines]"


def _entries(fd: int) -> tuple[list[str], list[str]]:
    """What lies in a folder; and what is to be said about the rest."""
    with os.scandir(fd) as found:
        entries = sorted(entry.name for entry in itertools.islice(found, 100_001))
    return [_entry(name, fd) for name in entries[:MAX_ENTRIES]], _more(len(entries) - MAX_ENTRIES)


def _more(count: int) -> list[str]:
    return [f"[{count:,} more]"] if count > 0 else []


def _entry(name: str, fd: int) -> str:
    shown = clean(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace").replace("\n", " "))
    try:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return shown
    if stat.S_ISDIR(status.st_mode):
        return f"{shown}/"
    if stat.S_ISLNK(status.st_mode):
        return f"{shown} (link)"
    return f"{shown} ({human_size(status.st_size)})"


def _matching(fd: int, pattern: str) -> tuple[list[str], list[str]]:
    """Paths below the folder whose name, or whole path when the pattern has a slash, matches; no link is followed.

    And what is to be said about the rest.
    """
    wanted = pattern.removeprefix("./").removeprefix("**/")
    found: list[str] = []
    stopped: list[str] = []
    count = seen = 0
    for folder, folders, files, here in os.fwalk(".", dir_fd=fd, follow_symlinks=False):
        folders.sort()
        folders[:] = [name for name in folders if name not in (".git", "node_modules", "__pycache__")]
        for name in sorted(files):
            path = os.path.normpath(os.path.join(folder, name))  # noqa: PTH118
            if fnmatch.fnmatchcase(path if "/" in wanted else name, wanted):
                count += 1
                if count <= MAX_ENTRIES:
                    head = path[: -len(name)]
                    found.append(clean(head.encode("utf-8", "surrogateescape").decode("utf-8", "replace")) + _entry(name, here))
        seen += len(files) + len(folders)
        if seen > MAX_SEEN:
            stopped.append(f"[stopped after {seen:,} entries: look in a smaller folder]")
            break
    return found, [*_more(count - MAX_ENTRIES), *stopped]


def _how_often(text: str, old: str, count: int) -> str:
    if count:
        return f"the text occurs {count} times: give more of it, so that it is found once"
    first = old.strip().split("\n")[0].strip()
    near = [n for n, line in enumerate(text.split("\n"), 1) if first and first in line]
    hint = f"; its first line is at line {near[0]}, compare the spaces and the lines after it" if near else ""
    return f"the text does not occur{hint}"


def _changed(path: str, before: str | None, after: str, verb: str) -> ToolResult:
    diff, cut = unified(before or "", after, path)
    count = after.count("\n") + (not after.endswith("\n") and bool(after))
    text = f"{verb} {path} ({count} line{'s' if count != 1 else ''})"
    return ToolResult(True, text, data={"path": path, "created": verb == "created", "diff": diff, "diff_cut": cut})
