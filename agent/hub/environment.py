"""Where the Hub is and how a person reaches it: the environment variables and files that Hugging Face's own tools go by.

Source: https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
"""

from __future__ import annotations

import os
from pathlib import Path

ENDPOINT = "https://huggingface.co"
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})


def current_endpoint() -> str:
    """Where the Hub is: HF_ENDPOINT as it is now, or the public Hub."""
    return (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set now."""
    return _is_true("HF_HUB_OFFLINE") or _is_true("TRANSFORMERS_OFFLINE")


def saved_token() -> str | None:
    """The person's own token: HF_TOKEN, or what ``hf auth login`` has saved; None where there is none."""
    if _is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return None
    said = (os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or "").strip()
    if said:
        return said
    named = os.environ.get("HF_TOKEN_PATH")
    path = _expanded(named) if named else _hugging_face_home() / "token"
    try:
        return path.read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def cache_root() -> Path:
    """Hugging Face's cache of models: HF_HUB_CACHE or HF_HOME as they are now, or its usual place."""
    chosen = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return _expanded(chosen) if chosen else _hugging_face_home() / "hub"


def _hugging_face_home() -> Path:
    chosen = os.environ.get("HF_HOME")
    return _expanded(chosen) if chosen else _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"


def _expanded(path: str) -> Path:
    return Path(os.path.expandvars(path)).expanduser()


def _is_true(name: str) -> bool:
    return os.environ.get(name, "").upper() in _TRUE
