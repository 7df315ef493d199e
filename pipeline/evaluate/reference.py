"""The model that candidates are compared with: a GGUF as it is, or a GGUF made of a checkpoint for the time of an evaluation."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from agent.device.machine import available_memory
from agent.errors import OutputError
from agent.models.find import find_model, needs_pipeline
from pipeline.preflight import PlanOptions, Preflight
from pipeline.quantize import dry_run, quantize

# Of the options of the file that is compared, those that say which model it is and how it is read. The revision is in its name.
_OPTIONS = ("base", "token", "offline", "stream", "threads")


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
def made_reference(
    model: str, *, beside: Path | None = None, options: PlanOptions | None = None
) -> Iterator[Path]:  # fmt: skip
    """A GGUF of a checkpoint, removed at the end.

    It is F32, with which llama.cpp computes nearly twice as fast as with F16 or BF16 where the processor has no instructions for
    these; F16 where F32 would take more than half of the free memory, or does not fit the disk.

    Args:
        beside: where a folder is made for it; by default among the system's temporary files.
        options: of ``quantize``; those that say which model it is and how it is read hold here too.

    Raises:
        SprigError: no GGUF can be made of it.
    """
    kept = cast(PlanOptions, {name: value for name, value in (options or {}).items() if name in _OPTIONS})
    with tempfile.TemporaryDirectory(prefix=".sprig-", dir=beside) as folder:
        out = Path(folder) / "reference.gguf"
        try:
            path = quantize(model, _recipe(model, out, kept), out, **kept).path
        except OutputError as e:
            where = "" if beside else " (TMPDIR names another folder)"
            raise OutputError(f"nothing to compare with could be made of {model}: {e}{where}") from None
        yield path


def _recipe(model: str, out: Path, options: PlanOptions) -> str:
    with suppress(OutputError):
        plan = dry_run(model, "F32", out, **options)
        if isinstance(plan, Preflight) and plan.size <= available_memory() // 2:
            return "F32"
    return "F16"
