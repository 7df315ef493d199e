"""The model that candidates are compared with: a GGUF as it is, or a GGUF made of a checkpoint for the time of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.errors import OutputError
from agent.models.find import find_model, needs_pipeline
from pipeline.as_gguf import made_gguf
from pipeline.preflight import PlanOptions


@dataclass(frozen=True, slots=True)
class Reference:
    """Where the file is, and what a person calls the model."""

    path: Path
    name: str


@contextmanager
def open_reference(model: Path | str) -> Iterator[Reference]:
    """Find or make the reference; what was made is removed at the end.

    Args:
        model: a GGUF by its path or its name in the store, or a checkpoint: a folder or a name of the Hub.

    Raises:
        SprigError: there is no such model, or no GGUF can be made of it.
    """
    if isinstance(model, Path) or not needs_pipeline(model):
        path = find_model(model)
        yield Reference(path, path.name)
        return
    with made_reference(model) as path:
        yield Reference(path, model)


@contextmanager
def made_reference(model: str, *, folder: Path | None = None, options: PlanOptions | None = None) -> Iterator[Path]:
    """``made_gguf`` of a checkpoint, to compare with.

    Args:
        folder: made for it, and removed; by default one among the system's temporary files.
        options: of ``quantize``; those that say which model it is and how it is read hold here too. A revision is in its name.

    Raises:
        SprigError: no GGUF can be made of it.
    """
    kept = {name: value for name, value in (options or {}).items() if name != "revision"}
    with ExitStack() as stack:
        try:
            path = stack.enter_context(made_gguf(model, folder, kept))
        except OutputError as e:
            where = "" if folder else " (TMPDIR names another folder)"
            raise OutputError(f"nothing to compare with could be made of {model}: {e}{where}") from None
        yield path
