"""LoRA adapters (GGUF) that a model is loaded with: found, checked against the model, and made a part of what the model is."""

from __future__ import annotations

import hashlib
import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.errors import GGUFError, SprigError
from agent.home import adapters
from agent.models.file import ModelFile
from agent.models.find import expanded
from agent.models.reference import hub_reference
from agent.text import shortened

Lora = str | Path | tuple[str | Path, float]
"""An adapter as a person names it: a file, "FILE=SCALE", the name of one in SPRIG_HOME/adapters, or (file, scale)."""

_MOST_SCALE = 100.0


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter that fits its model.

    Attributes:
        path: of the GGUF, absolute.
        scale: how much of its change is added; 1 is what it was trained with.
        size: bytes of its weights.
        identity: changes when the file does.
    """

    path: str
    scale: float
    size: int
    identity: str


def read_adapters(wanted: Sequence[Lora], model: ModelFile) -> tuple[Adapter, ...]:
    """The adapters, checked, in the order in which they were named.

    Raises:
        SprigError: there is no such file, it is broken, it is for another model, or a scale cannot be.
    """
    if not wanted:
        return ()
    if isinstance(wanted, str | Path):
        raise SprigError(f"lora is a list of adapters: lora=[{str(wanted)!r}]")
    from agent.gguf.adapter import check_adapter, check_fits  # NumPy; not needed for a model that is known
    from agent.gguf.data import check_data
    from agent.gguf.reader import read_header

    header, found = read_header(Path(model.path)), []
    for path, scale in map(_named, wanted):
        theirs, pairs = check_adapter(path)
        check_fits(path, theirs, pairs, header, model.name)
        check_data(path, theirs)
        status = path.stat()
        stamp = f"{path} {status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
        identity = hashlib.sha256(stamp.encode("utf-8", "surrogateescape")).hexdigest()
        found.append(Adapter(str(path), scale, sum(e.nbytes for e in theirs.tensors.values()), identity))
    if twice := next((one.path for one in found if sum(one.path == other.path for other in found) > 1), None):
        raise SprigError(f"the adapter {twice} is named twice; name it once, with the scale that it shall have")
    return tuple(found)


def with_adapters(file: ModelFile, adapters: Sequence[Adapter]) -> ModelFile:
    """The model as it is with them: it takes more memory, and what was computed with it before is another model's."""
    if not adapters:
        return file
    stamp = " ".join([file.identity, *(f"{one.identity} {one.scale!r}" for one in adapters)])
    identity = hashlib.sha256(stamp.encode()).hexdigest()[:32]
    return replace(file, identity=identity, weights=file.weights + sum(one.size for one in adapters))


def _named(wanted: Lora) -> tuple[Path, float]:
    """File and scale of an adapter. Raises SprigError."""
    name, scale = wanted if isinstance(wanted, tuple) else (wanted, 1.0)
    path = _find(name)
    before, _, behind = str(name).rpartition("=")
    if path is None and before and not isinstance(wanted, tuple):
        try:
            path, scale = _find(before), float(behind)
        except ValueError:
            raise SprigError(f"{behind!r} behind the adapter {before} is no scale; 0.5 or 1 are") from None
    if path is None:
        there = f"there is no GGUF adapter {shortened(str(name), 200)!r}: neither a file nor a name in {adapters()}"
        made = os.path.isdir(expanded(str(name))) or hub_reference(str(name))  # noqa: PTH112 - any text may be typed
        raise GGUFError(f"{there}; `sprig quantize {shlex.quote(str(name))} --lora` makes one" if made else there)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale) or abs(scale) > _MOST_SCALE:
        raise SprigError(f"the scale of the adapter {path.name} is {scale!r} and must be a number from -100 to 100")
    return path, float(scale)


def _find(name: str | Path) -> Path | None:
    path = expanded(str(name))
    stored: tuple[Path, ...] = (adapters() / path.name, adapters() / f"{path.name}.gguf") if len(path.parts) == 1 else ()
    for place in (path, *stored):
        if os.path.isfile(place):  # noqa: PTH113 - a name that no file can have is no error to it
            return place.absolute()
    return None
