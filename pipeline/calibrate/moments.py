"""What is summed up of an input: squares of each column, and products of all pairs of columns.

The products are symmetric, so a triangle is kept, in LAPACK's rectangular full packed form: half the memory, at the speed of the
full one. Source: Gustavson, Wasniewski, Dongarra, Langou, "Rectangular Full Packed Format for Cholesky's Algorithm" (ACM TOMS
37(2), 2010).
"""

from __future__ import annotations

import os
import secrets
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from agent.errors import SprigError
from agent.files import publish, write_error
from pipeline.calibrate.inputs import Input
from pipeline.format.ggml import Floats

_BLOCK = 256  # columns that are mirrored at once


class Moments:
    """The sums of one input over the tokens seen so far.

    Attributes:
        windows: windows of text that are in them.
        counts: int64 [matrices], tokens.
        sums: float64 [matrices, columns], of squares.
        packed: float32 [matrices, columns * (columns + 1) / 2], of products of pairs; None if these are not wanted.
    """

    def __init__(self, one: Input, *, products: bool) -> None:
        self.name = one.name
        self.windows = 0
        self.counts = np.zeros(one.matrices, np.int64)
        self.sums = np.zeros((one.matrices, one.columns))
        self.packed: Floats | None = np.zeros((one.matrices, one.packed // one.matrices), np.float32) if products else None

    def add(self, matrix: int, rows: Floats) -> None:
        """Add tokens, float32 [tokens, columns]. Raises SprigError if a sum is not finite any more."""
        squares = np.einsum("ij,ij->j", rows, rows, dtype=np.float64, casting="safe")
        if not np.isfinite(squares).all():
            raise SprigError(f"{self.name} is multiplied with values that are not finite")
        self.counts[matrix] += len(rows)
        self.sums[matrix] += squares
        if self.packed is not None:
            from scipy.linalg.lapack import ssfrk

            columns, tokens = rows.shape[1], len(rows)
            own = self.packed[matrix]
            total = ssfrk(columns, tokens, 1.0, np.ascontiguousarray(rows).T, 1.0, own, overwrite_c=1)
            if not np.shares_memory(total, own):
                own[:] = total

    def save(self, path: Path) -> None:
        """Write the file in one step. Raises OutputError."""
        part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part.npz")
        arrays: dict[str, Any] = {"windows": np.int64(self.windows), "counts": self.counts, "sums": self.sums}
        if self.packed is not None:
            arrays["packed"] = self.packed
        try:
            with part.open("xb") as file:
                np.savez(file, **arrays)
            publish(part, path)
        except OSError as e:
            raise write_error(e, path) from None
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, one: Input, *, products: bool) -> Moments:
        """Read what ``save`` wrote. Raises SprigError if it is broken, or of another input."""
        self = cls.__new__(cls)
        self.name = one.name
        try:
            with np.load(path, allow_pickle=False) as file:
                self.windows = int(file["windows"])
                self.counts, self.sums = np.asarray(file["counts"], np.int64), np.asarray(file["sums"], np.float64)
                self.packed = np.asarray(file["packed"], np.float32) if products else None
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as e:
            reason = os.strerror(e.errno) if isinstance(e, OSError) and e.errno else "it is broken"
            raise SprigError(f"cannot read {path}: {reason}; calibrate again") from None
        shapes = [(one.matrices,), (one.matrices, one.columns), (one.matrices, one.packed // one.matrices)]
        found = [self.counts.shape, self.sums.shape, shapes[2] if self.packed is None else self.packed.shape]
        if found != shapes or not np.isfinite(self.sums).all() or (self.packed is not None and np.isnan(self.packed).any()):
            raise SprigError(f"{path} does not hold the sums of {one.name}; calibrate again")
        return self


def unpack(packed: Floats, columns: int) -> Floats:
    """The full symmetric matrix, float32 [columns, columns], of a packed triangle."""
    from scipy.linalg.lapack import stfttr

    full: Floats = stfttr(columns, packed)[0].T  # what LAPACK calls the upper triangle is the lower one of rows
    for i in range(0, columns, _BLOCK):
        end = i + _BLOCK
        full[i:end, end:] = full[end:, i:end].T
        corner = full[i:end, i:end]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T
    return full
