"""A model on the Hub, in any of the spellings in which people write one down."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co", "hf-mirror.com"})
_REPO = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_SCHEME = re.compile(r"(?:hf|huggingface):(?://)?(?:models/)?", re.IGNORECASE)
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
    lowered = text.lower()
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc.lower()
    hosts = _HOSTS | ({endpoint} if endpoint else set())
    if lowered.startswith(("http://", "https://")):
        parts = urlsplit(text)
        return parts.path if parts.netloc.lower() in hosts else None
    host, slash, path = text.partition("/")
    return path if slash and host.lower() in hosts else None


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
    if not _REPO.fullmatch(repo_id) or repo_id.endswith((".gguf", ".git")) or "--" in repo_id or ".." in repo_id:
        return None
    return HubReference(repo_id, revision or None, selector or None)
