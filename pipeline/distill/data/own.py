"""Texts that the teacher writes itself, where a person has none: answers to the project's seed prompts, in its own template."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.as_gguf import made_gguf
from pipeline.calibrate.talks import write_talks
from pipeline.distill.data.packing import LessonPiece
from pipeline.text.calibration import own_text
from pipeline.text.seeds import prompts

_RECIPE = "Q8_0"  # it loses next to nothing, and writes faster than 16 bits


def own_pieces(folder: Path, tokens: int, threads: int | None, on_progress: Callable[[int, int], None]) -> list[LessonPiece]:
    """Talks and, a third at most, paragraphs of the project's calibration text, of so many tokens together; all of it counts.

    Args:
        folder: the teacher's checkpoint. Its GGUF is made in a scratch folder for this.

    Raises:
        SprigError: the teacher cannot be quantized, does not fit the memory, or writes nothing.
    """
    with made_gguf(str(folder), None, {"threads": threads}, kinds=(_RECIPE,)) as gguf:
        written = write_talks(gguf, prompts(), own_text(), tokens, threads=threads, on_progress=on_progress)
    return [LessonPiece(list(ids), [True] * len(ids)) for ids in written.mixed()]
