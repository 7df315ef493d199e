"""Which MCP servers there are: from a word on the command line, or from the JSON file that other MCP clients read as well."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.errors import SprigError

CALL_SECONDS = 60.0
CONNECT_SECONDS = 10.0
_FILE_BYTES = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_NAMED = re.compile(r"([A-Za-z0-9_-]{1,40})=(.+)", re.DOTALL)


class MCPError(SprigError):
    """An MCP server cannot be used."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """One server. It has a command or a URL, not both.

    Attributes:
        name: letters, digits, ``_`` and ``-``; its tools are called ``name__tool``.
        command: program and arguments of a server that speaks over its standard input and output.
        env: set for it, beside PATH, HOME, LANG and TMPDIR; nothing else of this process's environment is handed on.
        cwd: its working directory.
        url: of a server that speaks streamable HTTP.
        headers: sent with every request, to this server only.
        timeout: seconds that a call may take.
        connect_timeout: seconds until it must have introduced itself.
        allow: patterns (``*``, ``?``) of the tools to offer, by the server's own names; None, all.
        deny: patterns of the tools not to offer; stronger than ``allow``.
    """

    name: str
    command: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = CALL_SECONDS
    connect_timeout: float = CONNECT_SECONDS
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise MCPError(f"an MCP server cannot be called {self.name[:80]!r}: use letters, digits, _ and -, at most 40")
        if (self.command is None) == (self.url is None):
            raise MCPError(f"MCP server {self.name}: give it a command or a url, and not both")
        if self.command is not None and not (self.command and self.command[0]):
            raise MCPError(f"MCP server {self.name}: its command is empty")
        if any("\0" in part for part in (*(self.command or ()), *self.env, *self.env.values(), self.cwd or "")):
            raise MCPError(f"MCP server {self.name}: its command holds a NUL character")
        if self.url is not None and not _is_url(self.url):
            raise MCPError(f"MCP server {self.name}: {self.url[:200]!r} is no http or https URL")
        if any("\n" in part or "\r" in part for pair in self.headers.items() for part in pair):
            raise MCPError(f"MCP server {self.name}: a header holds a line break")
        if not (0 < self.timeout < 1e6 and 0 < self.connect_timeout < 1e6):
            raise MCPError(f"MCP server {self.name}: a timeout is a positive number of seconds")

    @classmethod
    def parse(cls, text: str) -> tuple[ServerConfig, ...]:
        """What a person wrote: ``name=command arguments``, ``name=https://…``, a URL, or a JSON file of servers.

        Raises:
            MCPError: the text is something else.
        """
        text = text.strip()
        if _is_url(text):
            return (cls(_name_of(text), url=text),)
        if text.endswith(".json") and not _NAMED.fullmatch(text):
            return _from_file(Path(text).expanduser())
        named = _NAMED.fullmatch(text)
        if named is None:
            raise MCPError(f"{text[:80]!r} is no MCP server: write name=command, a URL, or the path of a .json file of servers")
        name, rest = named[1], named[2].strip()
        if _is_url(rest):
            return (cls(name, url=rest),)
        try:
            return (cls(name, command=tuple(shlex.split(rest))),)
        except ValueError as e:
            raise MCPError(f"MCP server {name}: the command cannot be read ({e})") from None

    def offers(self, tool: str) -> bool:
        """Whether this tool of the server is to be offered."""
        if any(fnmatchcase(tool, pattern) for pattern in self.deny):
            return False
        return self.allow is None or any(fnmatchcase(tool, pattern) for pattern in self.allow)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not any(c.isspace() for c in text)
    except ValueError:
        return False


def _name_of(url: str) -> str:
    host = re.sub(r"^(www|mcp|api)\.", "", urlsplit(url).hostname or "")
    return re.sub(r"[^A-Za-z0-9_-]+", "-", host).strip("-")[:40] or "server"


def _from_file(path: Path) -> tuple[ServerConfig, ...]:
    """``{"mcpServers": {"name": {"command": …, "args": […], "env": {…}} or {"url": …, "headers": {…}}}}``."""
    try:
        with path.open("rb") as f:
            raw = f.read(_FILE_BYTES + 1)
        if len(raw) > _FILE_BYTES:
            raise MCPError(f"{path} is larger than a list of MCP servers can be")
        servers = json.loads(raw)["mcpServers"]
        return tuple(_from_json(name, entry, path) for name, entry in servers.items() if not entry.get("disabled"))
    except OSError as e:
        raise MCPError(f"{path} cannot be read: {e.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise MCPError(f'{path} is no list of MCP servers: it must read {{"mcpServers": {{"name": {{"command": …}}}}}}') from None


def _from_json(name: str, entry: Mapping[str, Any], path: Path) -> ServerConfig:
    def take(key: str, fits: Callable[[Any], bool], what: str) -> Any:
        value = entry.get(key)
        if value is not None and not fits(value):
            raise MCPError(f"{path}, server {name[:80]!r}: {key} is not {what}")
        return value

    def texts(key: str) -> tuple[str, ...] | None:
        value = take(key, lambda v: isinstance(v, list) and all(isinstance(item, str) for item in v), "a list of texts")
        return None if value is None else tuple(value)

    def pairs(key: str) -> dict[str, str]:
        value = take(
            key, lambda v: isinstance(v, dict) and all(isinstance(item, str) for item in v.values()), "an object of texts"
        )
        return value or {}

    def text(key: str) -> str | None:
        found: str | None = take(key, lambda v: isinstance(v, str), "a text")
        return found

    def seconds(key: str, default: float) -> float:
        value = take(key, lambda v: isinstance(v, int | float) and not isinstance(v, bool), "a number of seconds")
        return default if value is None else float(value)

    program = text("command")
    return ServerConfig(
        name,
        command=None if program is None else (program, *(texts("args") or ())),
        env=pairs("env"), cwd=text("cwd"), url=text("url"), headers=pairs("headers"),
        timeout=seconds("timeout", CALL_SECONDS), connect_timeout=seconds("connect_timeout", CONNECT_SECONDS),
        allow=texts("allow"), deny=texts("deny") or (),
    )  # fmt: skip
