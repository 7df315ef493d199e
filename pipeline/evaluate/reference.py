"""The model that candidates are compared with: a GGUF as it is, or a GGUF made of a checkpoint for the time of an evaluation."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.errors import OutputError
from agent.models.find import find_model, needs_pipeline
from pipeline.sources.extra import need_pipeline_extra


@dataclass(frozen=True, slots=True)
class Reference:
    """Where the file is, and what a person calls the model."""

    path: Path
    name: str


@contextmanager
def open_reference(reference: Path | str) -> Iterator[Reference]:
    """Find or make the reference; what was made is removed at the end.

    Args:
        reference: a GGUF by its path or its name in the store, or a checkpoint: a folder or a name of the Hub.

    Raises:
        SprigError: there is no such model, or no GGUF can be made of it.
    """
    if isinstance(reference, Path) or not needs_pipeline(reference):
        path = find_model(reference)
        yield Reference(path, path.name)
        return
    need_pipeline_extra()
    from pipeline.quantize import quantize_reference

    with tempfile.TemporaryDirectory(prefix="sprig-reference-") as folder:
        try:
            path = quantize_reference(reference, Path(folder))
        except OutputError as e:
            raise OutputError(f"no reference could be made of {reference}: {e} (TMPDIR names another folder)") from None
        yield Reference(path, reference)
