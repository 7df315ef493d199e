"""What is summed up of an input that two files of one model give to the same weights: the original's, and the rounded one's."""

from __future__ import annotations

import secrets
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.errors import SprigError
from agent.files import publish, write_error
from pipeline.calibrate.inputs import Input
from pipeline.calibrate.moments import Moments, unpack
from pipeline.format.ggml import Floats


class InputRows(Moments):
    """Keeps the values of a window, for the other file to be compared with."""

    def __init__(self, one: Input) -> None:
        super().__init__(one, products=False)
        self.rows: list[Floats] = []

    def add(self, matrix: int, rows: Floats) -> None:
        self.rows.append(rows.copy())


class CrossMoments(Moments):
    """The second moment of the rounded file's inputs x, and the products of (original - x) with x.

    Attributes:
        original: the values of the same window in the original; those that were compared are taken out.
        cross: float32 [columns, columns], sum of (original - x) x^T.
    """

    def __init__(self, one: Input, original: InputRows) -> None:
        super().__init__(one, products=True)
        self.original = original
        self.cross = np.zeros((one.columns, one.columns), np.float32)

    def add(self, matrix: int, rows: Floats) -> None:
        """Add tokens, float32 [tokens, columns]. Raises SprigError as ``Moments.add``, or if the two files differ in tokens."""
        super().add(matrix, rows)
        other = self.original.rows.pop(0)
        if other.shape != rows.shape:
            raise SprigError(f"{self.name} has {len(other)} tokens in the original and {len(rows)} in the rounded file")
        self.cross += (other - rows).T @ rows

    def save(self, path: Path) -> None:
        """Write the file in one step. Raises OutputError."""
        part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part.npz")
        arrays: dict[str, Any] = {"tokens": self.counts[0], "packed": self.packed, "cross": self.cross}
        try:
            with part.open("xb") as file:
                np.savez(file, **arrays)
            publish(part, path)
        except OSError as e:
            raise write_error(e, path) from None
        finally:
            part.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class SumsOfBoth:
    """What ``CrossMoments`` wrote.

    Attributes:
        hessian: float32 [columns, columns], sum of x x^T of the rounded file.
        cross: float32 [columns, columns], sum of (original - x) x^T.
        tokens: how many are in them.
    """

    hessian: Floats
    cross: Floats
    tokens: int

    @classmethod
    def load(cls, path: Path, columns: int) -> SumsOfBoth:
        """Raises SprigError if it is broken."""
        try:
            with np.load(path, allow_pickle=False) as file:
                packed, cross, tokens = file["packed"], np.asarray(file["cross"], np.float32), int(file["tokens"])
            return cls(unpack(np.asarray(packed[0], np.float32), columns), cross, tokens)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise SprigError(f"cannot read {path}: it is broken") from None

    def __add__(self, other: SumsOfBoth) -> SumsOfBoth:
        return SumsOfBoth(self.hessian + other.hessian, self.cross + other.cross, self.tokens + other.tokens)
