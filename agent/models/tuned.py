"""How a model is computed fastest on this machine, as `sprig bench --tune` found it. A hint: losing it is never an error."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.device.processor import Threads, read_cores
from agent.errors import SprigError
from agent.files import atomic_write
from agent.home import home
from agent.models.memory import Cache

_MOST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was found.

    Attributes:
        decode, prefill: threads for one token at a time, and for a prompt.
        cores: those to stay on; empty for all.
        batch: tokens computed at once.
        cache: type of K and V; None where memory decides.
    """

    decode: int
    prefill: int
    cores: tuple[int, ...]
    batch: int
    cache: Cache | None = None

    @property
    def threads(self) -> Threads:
        return Threads(self.decode, self.prefill, self.cores, "as sprig bench --tune found it")


def _place(identity: str) -> Path:
    """One file for a model on so many cores: a mask, or another machine with this disk, is another matter."""
    numbers = "-".join(str(core.number) for core in read_cores())
    return home() / "cache" / "tuned" / f"{identity}-{numbers}.json"


def recall_tuned(identity: str) -> Tuned | None:
    """What was found for the model of this identity on these cores; None when nothing was, or it cannot be read."""
    try:
        with _place(identity).open("rb") as f:
            data = json.loads(f.read(_MOST_BYTES))
        cores = tuple(int(core) for core in data["cores"])
        cache: Cache | None = "q8_0" if data.get("cache") == "q8_0" else None
        found = Tuned(int(data["decode"]), int(data["prefill"]), cores, int(data["batch"]), cache)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    right = 1 <= found.decode <= 1024 and 1 <= found.prefill <= 1024 and 8 <= found.batch <= 4096
    return found if right and all(0 <= core < 4096 for core in found.cores) else None


def remember_tuned(identity: str, found: Tuned) -> None:
    """Remember it for the next time that the model is loaded. SprigError when it cannot be written."""
    place = _place(identity)
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(place, json.dumps(asdict(found)) + "\n")


def forget_tuned(identity: str) -> None:
    """Forget what was found for this model on these cores."""
    with contextlib.suppress(OSError, SprigError):
        _place(identity).unlink(missing_ok=True)
