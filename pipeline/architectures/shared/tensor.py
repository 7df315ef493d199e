"""One tensor of the GGUF as an architecture describes it: which rows of the checkpoint it is made of, and how."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
import numpy.typing as npt

Elementwise = Literal["add_one", "neg_exp"]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows [start, stop) of a checkpoint tensor seen as a matrix; ``stop=None`` means to the end."""

    source: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the GGUF.

    Attributes:
        name: its name in the GGUF.
        shape: rows last, as torch gives it (a GGUF lists the dimensions the other way round).
        sources: slices whose rows, one after the other, are its rows.
        f32: always stored as F32 (norms, biases, routers and whatever else llama.cpp wants so).
        row_order: row i of the output is row ``row_order[i]`` of the sources; None keeps the order.
        column_order: the same for columns; where it is shorter than the source's rows, the other columns are left out.
        transposed: each source is a matrix [row length, rows] and is transposed; ``row_order`` counts in its columns.
        function: applied to each weight.
        scale: what each row is multiplied with after that, float32 [rows]; for multipliers that llama.cpp's graph does not have.
        values: the content itself, float32, for a tensor that no checkpoint holds (RoPE factors); then no sources.
    """

    name: str
    shape: tuple[int, ...]
    sources: tuple[Slice, ...] = ()
    f32: bool = False
    row_order: Index | None = None
    column_order: Index | None = None
    function: Elementwise | None = None
    scale: npt.NDArray[np.float32] | None = None
    transposed: bool = False
    values: npt.NDArray[np.float32] | None = None

    @property
    def row_length(self) -> int:
        return self.shape[-1]

    @property
    def n_rows(self) -> int:
        return prod(self.shape[:-1])
