"""The store: the folder where finished models lie. Its files are found by name, and no name leads out of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import SprigError
from agent.files import exclusive
from agent.gguf.reader import read_header
from agent.home import models

# What a run that was killed may leave beside its output (pipeline/quantize.py), and the card that a finished one leaves.
_COMPANIONS = (".md", ".gguf.md", ".gguf.part", ".gguf.part.journal")
_OWN_FILE = re.compile(r"(.+?)\.gguf(?:\.part(?:\.journal)?)?", re.DOTALL)


CARD_MARK = "Made by Sprig"  # every card says so, and no file that lacks it is touched


def card_path(model: Path) -> Path:
    """Where the card of a GGUF lies: NAME.md, or NAME.gguf.md when NAME.md is somebody else's text."""
    card = model.with_suffix(".md")
    return card if not card.exists() or is_card(card) else model.with_name(model.name + ".md")


def is_card(path: Path) -> bool:
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
        companions: the files that belong to it: card, unfinished output, journal.
        size: bytes of the GGUF, or of the unfinished output.
        finished: whether the GGUF itself is there.
    """

    name: str
    path: Path
    companions: tuple[Path, ...]
    size: int
    finished: bool

    @property
    def files(self) -> tuple[Path, ...]:
        return ((self.path,) if self.finished else ()) + self.companions


def _stored(name: str) -> StoredModel | None:
    path = models() / f"{name}.gguf"
    beside = (models() / f"{name}{suffix}" for suffix in _COMPANIONS)
    companions = tuple(c for c in beside if c.is_file() and (c.suffix != ".md" or is_card(c)))
    finished = path.is_file()
    if not finished and all(c.suffix == ".md" for c in companions):
        return None
    part = Path(f"{path}.part")
    size = path.stat().st_size if finished else part.stat().st_size if part.is_file() else 0
    return StoredModel(name, path, companions, size, finished)


def list_models() -> list[StoredModel]:
    """Every model of the store and every unfinished one, sorted by name."""
    folder = models()
    if not folder.is_dir():
        return []
    names = {match[1] for f in folder.iterdir() if (match := _OWN_FILE.fullmatch(f.name))}
    return [found for name in sorted(names, key=str.casefold) if (found := _stored(name))]


def find_model(name: str) -> StoredModel:
    """The model of this name, with or without ``.gguf``.

    Raises:
        StoreError: there is none, or the name is a path or cannot be a file's name.
    """
    if not name.removesuffix(".gguf") or name.startswith(".") or any(c in name for c in "/\\\0"):
        raise StoreError(f"{name!r} cannot be the name of a stored model; `sprig models` lists them")
    try:
        found = _stored(name) or _stored(name.removesuffix(".gguf"))
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


def summary(model: StoredModel) -> dict[str, Any]:
    """What a list says of a model, from its header alone; ``problem`` is None when all is well."""
    keys: Mapping[str, Any] = {}
    problem = None if model.finished else "not finished: the same `sprig quantize` with --resume goes on"
    if model.finished:
        try:
            keys = read_header(model.path).keys
        except SprigError as e:
            problem = str(e)
    architecture = keys.get("general.architecture")
    return {
        "name": model.name,
        "path": str(model.path),
        "size": model.size,
        "finished": model.finished,
        "recipe": keys.get("sprig.recipe"),
        "architecture": architecture,
        "context": keys.get(f"{architecture}.context_length"),
        "source": keys.get("sprig.source.name"),
        "commit": keys.get("sprig.source.commit"),
        "problem": problem,
    }
