"""A model on the Hub, in any of the spellings in which people write one down."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co", "hf-mirror.com"})
_REPO = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_SCHEME = re.compile(r"(?:hf|huggingface):(?://)?(?:models/)?", re.IGNORECASE)
_CACHED, _COMMIT = re.compile(r"models--(.+)"), re.compile(r"[0-9a-f]{40}")
_VIEWS = frozenset({"tree", "blob", "resolve", "raw", "commit"})  # what stands before a revision in a browser's address


@dataclass(frozen=True, slots=True)
class HubReference:
    """A model on the Hub, and which part of it is meant.

    Attributes:
        repo_id: "org/name".
        revision: branch, tag or commit; None where none was named.
        selector: what stands behind ":", or the file that an address names: a quantization such as "Q4_K_M", or a file's name.
            None where none was named.
    """

    repo_id: str
    revision: str | None = None
    selector: str | None = None


def hub_reference(text: str) -> HubReference | None:
    """The Hub model that a text names, or None if it names none. Nothing is looked up.

    It reads ``org/name``, with ``@revision`` and ``:SELECTOR`` behind it, ``hf:`` and ``hf://`` before it, and the addresses
    of pages and files at huggingface.co, hf.co and the host of HF_ENDPOINT.
    """
    text = text.strip()
    if (address := _address(text)) is not None:
        return _from_address(address)
    rest = _SCHEME.sub("", text, count=1) if _SCHEME.match(text) else text
    rest, _, selector = rest.partition(":")
    rest, _, revision = rest.partition("@")
    return _made(rest.rstrip("/"), revision.rstrip("/"), selector.rstrip("/"))


def _address(text: str) -> str | None:
    """Path and query of a web address on a host of the Hub."""
    hosts = _HOSTS | {_host_and_path(os.environ.get("HF_ENDPOINT", ""))[0]} - {""}
    if text.lower().startswith(("http://", "https://")):
        named, path = _host_and_path(text)
        return path if named in hosts else None
    host, slash, path = text.partition("/")
    return path if slash and host.lower() in hosts else None


def _host_and_path(address: str) -> tuple[str, str]:
    """Both are empty where it is no address, as "http://[" is none."""
    with suppress(ValueError):
        parts = urlsplit(address)
        return parts.netloc.lower(), parts.path
    return "", ""


def _from_address(path: str) -> HubReference | None:
    parts = [unquote(p) for p in path.split("/") if p]
    if len(parts) < 2:
        return None
    name, _, selector = parts[1].partition(":")
    name, _, revision = name.partition("@")
    rest = parts[2:]
    if rest and rest[0] in _VIEWS:
        revision = rest[1] if len(rest) > 1 else revision
        selector = "/".join(rest[2:]) if rest[0] in ("blob", "resolve", "raw") else selector
    return _made(f"{parts[0]}/{name}", revision, selector)


def _made(repo_id: str, revision: str, selector: str) -> HubReference | None:
    if not _REPO.fullmatch(repo_id) or repo_id.lower().endswith((".gguf", ".git")) or "--" in repo_id or ".." in repo_id:
        return None
    return HubReference(repo_id, revision or None, selector or None)


@dataclass(frozen=True, slots=True)
class CachedSnapshot:
    """A model in the Hub's cache: its name, the commit, and the folder that holds that commit's files."""

    repo_id: str
    commit: str
    path: Path


def cached_snapshot(folder: Path) -> CachedSnapshot | None:
    """The model that a folder of the Hub's cache holds: ``models--org--name``, or a snapshot in it. None for any other folder.

    Of a ``models--org--name`` it is the commit that ``main`` names, or the only one there is.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow links out of the cache
    if folder.parent.name == "snapshots" and (match := _CACHED.fullmatch(folder.parent.parent.name)):
        return CachedSnapshot(_repo(match), folder.name, folder) if _COMMIT.fullmatch(folder.name) else None
    match = _CACHED.fullmatch(folder.name)
    if match is None:
        return None
    commit = ""
    with suppress(OSError, UnicodeDecodeError):
        commit = (folder / "refs" / "main").read_text().strip()
    snapshots = [p for p in folder.glob("snapshots/*") if p.is_dir() and _COMMIT.fullmatch(p.name)]
    chosen = [p for p in snapshots if p.name == commit] or snapshots
    return CachedSnapshot(_repo(match), chosen[0].name, chosen[0]) if len(chosen) == 1 else None


def _repo(match: re.Match[str]) -> str:
    return match[1].replace("--", "/", 1)  # a name holds no "--"; the oldest models have no organization
