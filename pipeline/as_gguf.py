"""A model as a GGUF to compute with for a while: the file that it is, or one that is made for the time of a block."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.errors import SprigError
from agent.files import scratch_folder
from agent.models.find import find_model
from pipeline.preflight import find_source
from pipeline.quantize import COMPUTED_IN, working_copy


@contextmanager
def as_gguf(
    model: str, folder: Path, options: Mapping[str, Any], *, kinds: Sequence[str] = COMPUTED_IN, most: float = math.inf
) -> Iterator[Path]:
    """The GGUF that a name means, as it is, or ``made_gguf`` of the checkpoint. Arguments and errors are those of that."""
    if (path := _ready(model, options)) is not None:
        yield path
        return
    with made_gguf(model, folder, options, kinds=kinds, most=most) as made:
        yield made


@contextmanager
def made_gguf(
    model: str, folder: Path | None, options: Mapping[str, Any], *, kinds: Sequence[str] = COMPUTED_IN, most: float = math.inf
) -> Iterator[Path]:
    """A GGUF of a checkpoint, removed at the end.

    Args:
        folder: made for it, and removed; None takes one among the system's temporary files.
        options, kinds, most: as ``pipeline.quantize.working_copy`` has them.

    Raises:
        SprigError: none can be made of it.
    """
    with scratch_folder(folder) if folder else tempfile.TemporaryDirectory(prefix=".sprig-") as scratch:
        yield working_copy(model, Path(scratch) / "model.gguf", options, kinds=kinds, most=most)


def _ready(model: str, options: Mapping[str, Any]) -> Path | None:
    """The GGUF that is meant, if it is one: a file, or the name of one in the store."""
    if model.lower().endswith(".gguf"):
        return find_model(model)
    try:
        source = find_source(model, options)  # type: ignore[arg-type]
    except SprigError:
        try:
            return find_model(model)
        except SprigError:
            pass
        raise
    return source.path if source.kind == "gguf" else None
