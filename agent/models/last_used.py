"""The model and the session that were used last, so that a chat can offer them again. A hint: losing it is never an error."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from agent.errors import SprigError
from agent.files import atomic_write
from agent.home import home

_MOST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class LastUsed:
    """What was used last; empty is nothing.

    Attributes:
        model: as it was named: a path, or a name in the store.
        session: its id.
    """

    model: str = ""
    session: str = ""


def _place() -> Path:
    return home() / "last.json"


def recall() -> LastUsed:
    """What was remembered. A file that is missing, unreadable or broken remembers nothing."""
    try:
        with _place().open("rb") as f:
            data = json.loads(f.read(_MOST_BYTES))
        return LastUsed(**{key: value for key in ("model", "session") if isinstance(value := data.get(key), str)})
    except (OSError, ValueError, AttributeError, RecursionError):
        return LastUsed()


def remember(*, model: str | None = None, session: str | None = None) -> None:
    """Remember what is given; None leaves that as it was. Where nothing can be written, nothing is remembered."""
    before = recall()
    now = replace(before, model=before.model if model is None else model, session=before.session if session is None else session)
    if now == before:
        return  # flash memory wears out
    with contextlib.suppress(OSError, SprigError):
        home().mkdir(parents=True, exist_ok=True)
        atomic_write(_place(), json.dumps(asdict(now)) + "\n")
