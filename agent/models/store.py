"""The store: the folder where finished models lie. Its files are found by name, and no name leads out of it."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from agent.errors import SprigError
from agent.files import exclusive
from agent.home import models

# What a run that was killed may leave beside its output (pipeline/quantize.py, agent/models/pull.py), and the card and the
# origin that a finished one leaves.
_COMPANIONS = (".md", ".gguf.md", ".gguf.origin", ".gguf.part", ".gguf.part.journal", ".gguf.part.origin")
_OWN_FILE = re.compile(r"(.+?)\.gguf(?:\.part(?:\.journal|\.origin)?)?", re.DOTALL)
CARD_MARK = "Made by Sprig"  # every card says so, and no file that lacks it is touched


def card_path(model: Path) -> Path:
    """Where the card of a GGUF lies: NAME.md, or NAME.gguf.md when NAME.md is somebody else's text."""
    card = model.with_suffix(".md")
    return card if not card.exists() or _is_card(card) else model.with_name(model.name + ".md")


def _is_card(path: Path) -> bool:
    """Whether Sprig wrote this Markdown file."""
    try:
        with path.open("rb") as f:
            return CARD_MARK.encode() in f.read(1 << 16)
    except OSError:
        return False


class StoreError(SprigError):
    """A name that is not in the store, or that cannot be a name there."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """One model of the store.

    Attributes:
        name: what `sprig models` calls it: the file's name without ``.gguf``.
        path: the GGUF; it does not exist when only the leftovers of a killed run do.
        companions: the files that belong to it: card, origin, unfinished output, journal.
        size: bytes of the GGUF, or of the unfinished output.
        finished: whether the GGUF itself is there.
    """

    name: str
    path: Path
    companions: tuple[Path, ...]
    size: int
    finished: bool

    @property
    def part(self) -> Path:
        """Where the unfinished output lies, if there is any."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def files(self) -> tuple[Path, ...]:
        return ((self.path,) if self.finished else ()) + self.companions


def _look_up(name: str) -> StoredModel | None:
    """The model of exactly this name. OSError when no file can have such a name."""
    path = models().absolute() / f"{name}.gguf"
    beside = (path.with_name(f"{name}{suffix}") for suffix in _COMPANIONS)
    companions = tuple(c for c in beside if c.is_file() and (c.suffix != ".md" or _is_card(c)))
    finished = path.is_file()
    part = Path(f"{path}.part")
    if not finished and not any(c.name.startswith(part.name) for c in companions):
        return None
    size = path.stat().st_size if finished else part.stat().st_size if part.is_file() else 0
    return StoredModel(name, path, companions, size, finished)


def stored_models() -> list[StoredModel]:
    """Every model of the store and every unfinished one, sorted by name."""
    try:
        files = [f.name for f in models().iterdir()]
    except OSError:
        return []
    names = {match[1] for name in files if (match := _OWN_FILE.fullmatch(name))}
    return [found for name in sorted(names, key=str.casefold) if (found := _look_up(name))]


def may_be_a_name(text: str) -> bool:
    """Whether a model of the store can be called so; such a name leads nowhere else."""
    return bool(text.removesuffix(".gguf")) and not text.startswith(".") and not any(c in text for c in "/\\\0")


def stored_model(name: str) -> StoredModel:
    """The model of this name, with or without ``.gguf``.

    Raises:
        StoreError: no model has this name, or it is a path or cannot be a file's name.
    """
    if not may_be_a_name(name):
        raise StoreError(f"{name!r} cannot be the name of a stored model; `sprig models` lists them")
    try:
        found = _look_up(name) or _look_up(name.removesuffix(".gguf"))
    except OSError as e:
        raise StoreError(f"{name!r} cannot be the name of a stored model ({e.strerror}); `sprig models` lists them") from None
    if found is None:
        raise StoreError(f"there is no model {name!r} in {models()}; `sprig models` lists them")
    return found


def remove_model(model: StoredModel) -> int:
    """Delete the GGUF and all that belongs to it; returns the bytes that came free.

    Raises:
        StoreError: a file cannot be deleted.
        OutputError: a run is writing it at this moment.
    """
    freed = 0
    with ExitStack() as stack:
        for part in (path for path in model.files if path.suffix == ".part"):
            stack.enter_context(exclusive(part))
        for path in model.files:
            try:
                freed += path.lstat().st_size
                path.unlink()
            except OSError as e:
                raise StoreError(f"cannot remove {path}: {e.strerror}") from None
    return freed
