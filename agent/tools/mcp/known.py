"""What a person knows of servers' tools, in words, so that a change can be shown. Nothing is decided by it: see ``Pins``."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from agent.errors import SprigError
from agent.files import atomic_write
from agent.text.line_diff import unified
from agent.tools.mcp.schema import Offered

_LONGEST = 20_000  # characters of one tool that are kept
_MOST = 2_000_000  # characters of all of them; what comes later is not kept


def words_of(tool: Offered) -> str:
    """All that a person or a model may go by, in lines."""
    parts = [tool.title, tool.description, *(f"{name}: {json.dumps(value)}" for name, value in tool.annotations.items())]
    schemas = [("Arguments", tool.parameters), ("Result", tool.output)]
    parts += [f"{name}: {_pretty(schema)}" for name, schema in schemas if schema is not None]
    return "\n".join(part for part in parts if part)[:_LONGEST] + "\n"


def _pretty(schema: Any) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False, sort_keys=True)


class KnownTools:
    """(server, tool) -> how a person knows it. Kept in a file of JSON."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)
        self._written = dict(self._known)
        self._kept: dict[str, str] = {}  # digests of those that were kept in this process
        self._lock = threading.Lock()

    def keep(self, server: str, tool: Offered) -> None:
        """The person knows it as it is."""
        key = f"{server}\n{tool.name}"
        with self._lock:
            if self._kept.get(key) != tool.digest:
                self._known[key], self._kept[key] = words_of(tool), tool.digest

    def difference(self, server: str, tool: Offered) -> str:
        """From how a person knows it to how it is now, as a unified diff; all of it is new where that was not kept."""
        return unified(self._known.get(f"{server}\n{tool.name}", ""), words_of(tool), tool.name)[0]

    def save(self) -> None:
        """Write it, as far as there is room. Where that cannot be, a later change is shown without what was before."""
        room, kept = _MOST, {}
        with self._lock:
            if self._known == self._written:
                return
            self._written = dict(self._known)
        for key, words in self._written.items():
            room -= len(key) + len(words)
            if room > 0:
                kept[key] = words
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_write(self._path, json.dumps(kept, indent=1).encode("utf-8", "replace"))
        except (OSError, SprigError):
            return


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as f:
            found = json.loads(f.read(8 * _MOST))
        return {str(key): str(words) for key, words in found.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
