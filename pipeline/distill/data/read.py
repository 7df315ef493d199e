"""Text files as sequences to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from agent.errors import SprigError
from pipeline.distill.data.lesson import TrainingSequence


def read_lessons(folder: Path, files: Sequence[Path], *, width: int, own: bool = False) -> tuple[TrainingSequence, ...]:
    """The texts in sequences of ``width`` tokens, all of which count. Raises SprigError when there is no text."""
    if own or not files:
        raise SprigError("no text was given; name files with --data")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [i for file in files for i in tokenizer.encode(file.read_text()).ids]
    parts = [tuple(ids[i : i + width]) for i in range(0, len(ids), width)]
    return tuple(TrainingSequence(part, (True,) * len(part)) for part in parts if len(part) > 1)
