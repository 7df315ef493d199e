"""What the tools of MCP servers looked like when they were first seen, so that a later change is noticed.

A server that was trusted once can swap a tool's description or schema afterwards ("rug pull", CVE-2025-54136).
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

from agent.errors import SprigError
from agent.files import atomic_write

_BYTES = 4_000_000


class Pins:
    """(server, tool) -> the digest that a person has seen. Kept in a file of JSON."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known = _read(path)

    def changed(self, server: str, tool: str, digest: str) -> bool:
        """Whether the tool is another one than was first seen; one that was never seen is remembered now."""
        with self._lock:
            known = self._known.setdefault(server, {})
            if tool in known:
                return known[tool] != digest
            known[tool] = digest
            return False

    def accept(self, server: str, tool: str, digest: str) -> None:
        """The tool as it is now is the one that counts."""
        with self._lock:
            self._known.setdefault(server, {})[tool] = digest
        self.save()

    def save(self) -> str:
        """Write what is known; in words why that did not work, or nothing."""
        with self._lock:
            text = json.dumps(self._known, indent=1, sort_keys=True)
            if text == json.dumps(_read(self._path), indent=1, sort_keys=True):
                return ""
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                atomic_write(self._path, text.encode("utf-8", "replace"))
            except (OSError, SprigError) as e:
                return f"what tools look like cannot be remembered: {e}"
        return ""


def _read(path: Path) -> dict[str, dict[str, str]]:
    """What the file says; empty if it is missing or not ours: then every tool is new, and a person is asked."""
    try:
        with path.open("rb") as f:
            data = json.loads(f.read(_BYTES))
        return {
            str(server): {str(tool): str(digest) for tool, digest in tools.items()}
            for server, tools in data.items()
            if isinstance(tools, dict)
        }
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
