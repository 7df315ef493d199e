"""Tensors of a file that are rounded again for their inputs, and written in their places."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from agent.errors import SprigError
from agent.gguf.reader import TensorEntry, read_header
from pipeline.calibrate.inputs import Input
from pipeline.format import ggml
from pipeline.format.ggml import Floats
from pipeline.refine.sums import SumsOfBoth
from pipeline.refine.target import Corrections
from pipeline.rounding.blocks import FORMATS
from pipeline.rounding.gptq import GptqEncoder
from pipeline.rounding.on_grid import looks_on_grid

_LOOK = 8  # rows that tell whether a tensor lies on a grid
_FEWEST = 64  # tokens of a fold


class RoundingAgain:
    """A file that is rounded again, input by input.

    Attributes:
        seen: labels of the inputs that were met.
        changed: GGUF names of the tensors that changed; ``tensors`` counts those that were looked at.
    """

    def __init__(self, part: Path, original: Path, threads: int) -> None:
        self.threads = threads
        self.places, self.originals = read_header(part).tensors, read_header(original).tensors
        self.weights = np.memmap(original, np.uint8, "r")
        self.fd = os.open(part, os.O_WRONLY | os.O_CLOEXEC)
        self.seen: set[str] = set()
        self.changed: list[str] = []
        self.tensors = 0

    def input(
        self, label: str, names: Sequence[str], original: Floats, rounded: Floats, lengths: Sequence[int], every: int
    ) -> bool:
        """Round the weights of an input, whose rows are those of all tokens, or of one in ``every``.

        Args:
            names: of the weights.
            original, rounded: float32 [tokens, columns], what the two files have there.
            lengths: tokens of each window; the first half of the windows judges the other.
        """
        if label in self.seen:
            raise SprigError(f"{label} is computed twice")
        self.seen.add(label)
        half, total = sum(lengths[: len(lengths) // 2]), sum(lengths)
        if len(rounded) != total:
            half, total = -(-half // every), -(-total // every)
        entries = self._rounded(names)
        self.tensors += len(entries)
        if len(rounded) != total or any(t.shape != (t.shape[0], rounded.shape[1]) for t in entries):
            raise SprigError(f"{label} has another shape than was expected")
        if entries and min(half, total - half) >= _FEWEST:
            with threadpool_limits(self.threads, "blas"):
                folds = [SumsOfBoth.of(original[at], rounded[at]) for at in (slice(0, half), slice(half, total))]
            one = Input(tuple(names), rounded.shape[1], 1, False, False)
            with threadpool_limits(1, "blas"):
                self._round(entries, Corrections(folds), GptqEncoder(_RoundedInputs(one, folds), self.threads))
        return True

    def _round(self, entries: Sequence[TensorEntry], corrections: Corrections, rounder: GptqEncoder) -> None:
        for entry in entries:
            wanted = corrections.of(self._original(entry.name))
            rows = None if wanted is None else rounder.encode(entry.name, wanted, entry.type)
            if rows is not None:
                os.pwrite(self.fd, np.ascontiguousarray(rows).data, entry.offset)
                self.changed.append(entry.name)

    def _rounded(self, names: Sequence[str]) -> list[TensorEntry]:
        """The tensors that are in blocks of a format, and whose weights do not lie on its grid already."""
        known = [self.places[name] for name in names if name in self.originals and self.places[name].type.name in FORMATS]
        return [t for t in known if not looks_on_grid(self._original(t.name, _LOOK), FORMATS[t.type.name])]

    def _original(self, name: str, rows: int | None = None) -> Floats:
        """Rows of the original's weight, float32 [rows, columns]; by default all."""
        entry = self.originals[name]
        size = entry.type.row_size(entry.shape[-1])
        stop = entry.nbytes if rows is None else min(entry.nbytes, rows * size)
        raw = np.asarray(self.weights[entry.offset : entry.offset + stop]).reshape(-1, size)
        return ggml.to_float(np.ascontiguousarray(raw), entry.type, entry.shape[-1])


@dataclass(frozen=True, slots=True)
class _RoundedInputs:
    """One input of the rounded file, as an encoder asks for it."""

    one: Input
    folds: Sequence[SumsOfBoth]

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """It is of the file that is rounded."""

    def input_of(self, name: str) -> Input | None:
        return self.one

    def hessian(self, name: str, fold: Literal["A", "B"] | None = None, matrix: int = 0) -> tuple[Floats, int] | None:
        found = self.folds[0] + self.folds[1] if fold is None else self.folds["AB".index(fold)]
        return found.hessian, found.tokens

    def squares(self, name: str) -> Floats | None:
        both = self.folds[0] + self.folds[1]
        return (np.diagonal(both.hessian)[None] / both.tokens).astype(np.float32)
