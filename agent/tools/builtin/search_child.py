"""The process that searches files: a regular expression may never end, so it runs where it can be killed.

``agent.tools.builtin.files`` starts it; it reads below one root and writes nothing.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import Any

from agent.tools.builtin.root import Root

MAX_HITS = 50
MAX_LINE = 200
MAX_FILE = 1 << 24


def search(job: dict[str, Any]) -> str:
    """Lines of the files at ``path`` below ``root`` that contain ``text`` or match it: "path:line: the line"."""
    from pathlib import Path

    root, text = Root(Path(job["root"])), job["text"]
    try:
        expression: re.Pattern[str] | None = re.compile(text)
    except (re.error, OverflowError, RecursionError):
        expression = None
    deadline = time.monotonic() + job["seconds"]
    hits: list[str] = []
    files, more = 0, ""
    for path, fd in root.files(job["path"]):
        if time.monotonic() > deadline:
            more = f"[time was up after {files} files: look in a smaller folder]"
            break
        files += 1
        for number, line in _lines(fd):
            if text in line or (expression is not None and expression.search(line)):
                hits.append(f"{path}:{number}: {_around(line, text)}")
        if len(hits) >= MAX_HITS:
            more = f"[more than {MAX_HITS} lines: look for something rarer, or in a smaller folder]"
            break
    if not hits:
        return more or f"not found in {files} file{'s' if files != 1 else ''}"
    return "\n".join([*hits[:MAX_HITS], *([more] if more else [])])


def _lines(fd: int) -> Iterator[tuple[int, str]]:
    with os.fdopen(os.dup(fd), "rb") as f:
        raw = f.read(MAX_FILE)
    if b"\0" in raw[:8192]:
        return
    for number, line in enumerate(raw.split(b"\n"), 1):
        yield number, line[:100_000].decode("utf-8", "replace")


def _around(line: str, text: str) -> str:
    line = line.strip()
    if len(line) <= MAX_LINE:
        return line
    at = max(0, line.find(text) - MAX_LINE // 4)
    return ("…" if at else "") + line[at : at + MAX_LINE] + "…"
