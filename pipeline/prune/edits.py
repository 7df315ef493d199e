"""What becomes of each tensor of a checkpoint: kept rows, kept columns, new values. Shapes are known before a weight is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from agent.errors import CheckpointError
from agent.text import brief
from pipeline.checkpoint.write import NewTensor
from pipeline.format.ggml import Floats
from pipeline.prune.repair import Index
from pipeline.prune.structure import block_of, moved
from pipeline.sources.checkpoint import PLAIN_TYPES, Checkpoint, TensorInfo
from pipeline.sources.merged import floats

Compute = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class _Step:
    """Of a tensor with at most two dimensions: the rows and columns that stay, or ``compute`` in the place of the slicing."""

    rows: Index | None
    columns: Index | None
    compute: Compute | None

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        rows = shape[0] if self.rows is None else len(self.rows)
        return (rows, *shape[1:-1], shape[-1] if self.columns is None else len(self.columns)) if len(shape) > 1 else (rows,)

    def apply(self, weights: Floats) -> Floats:
        if self.compute is not None:
            return self.compute(weights)
        if self.rows is not None:
            weights = weights[self.rows]
        return weights if self.columns is None else weights[..., self.columns]


class Edits:
    """All changes to a checkpoint, by the old names of its tensors. Steps are done in the order in which they were added."""

    def __init__(self, infos: Mapping[str, TensorInfo]) -> None:
        self.infos = infos
        self._steps: dict[str, list[_Step]] = {}
        self._columns: dict[str, Index] = {}
        self._left_out: set[str] = set()
        self._blocks: dict[int, int] | None = None

    def keep_rows(self, name: str | None, rows: Index) -> None:
        """Rows of a matrix, entries of a vector; nothing if there is no such tensor."""
        if name is not None:
            self._steps.setdefault(name, []).append(_Step(rows, None, None))

    def keep_columns(self, name: str, columns: Index, compute: Compute | None = None) -> None:
        """Columns of a matrix; ``compute`` gives them new values from the whole tensor."""
        assert name not in self._columns
        self._columns[name] = columns
        self._steps.setdefault(name, []).append(_Step(None, columns, compute))

    def change(self, name: str, compute: Compute) -> None:
        """New values of the same shape."""
        self._steps.setdefault(name, []).append(_Step(None, None, compute))

    def keep_blocks(self, kept: tuple[int, ...]) -> None:
        """The layers that stay, in their order."""
        self._blocks = {old: new for new, old in enumerate(kept)}

    def leave_out(self, name: str) -> None:
        self._left_out.add(name)

    def columns_of(self, name: str) -> Index | None:
        """The columns that stay; None for all."""
        return self._columns.get(name)

    def tensors(self) -> Iterator[NewTensor]:
        """What is to be written, in the checkpoint's order."""
        for name, info in self.infos.items():
            block = block_of(name)
            if name in self._left_out or (self._blocks is not None and block is not None and block not in self._blocks):
                continue
            shape, dtype = info.shape, "F32" if info.dtype == "F64" else info.dtype
            for step in self._steps.get(name, ()):
                shape = step.shape(shape)
            to = name if self._blocks is None or block is None else moved(name, self._blocks[block])
            yield NewTensor(to, name, dtype, shape)

    def read(self, checkpoint: Checkpoint, name: str) -> Floats | None:
        """A tensor as it is to be, float32; None where it is to be copied as it is. Raises CheckpointError for NaN."""
        info = self.infos[name]
        if info.dtype not in PLAIN_TYPES:
            return None
        weights = floats(checkpoint, name).reshape(info.shape)
        if not np.isfinite(weights).all():
            raise CheckpointError(
                f"tensor {brief(name)} holds NaN or infinity; the checkpoint is broken or its training diverged"
            )
        steps = self._steps.get(name, ())
        for step in steps:
            weights = step.apply(weights)
        return weights if steps or info.dtype == "F64" else None
