"""One stored number a weight, times a scale: of the whole tensor, of a row, of a block, or of a group in a row."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import numpy as np

from pipeline.sources.checkpoint import Checkpoint, TensorInfo
from pipeline.sources.packed.shared.bits import numbers
from pipeline.sources.packed.shared.view import Floats, PackedSource, PackedWeight, misfit

FP8 = ("F8_E4M3", "F8_E5M2")
# What a server needs to quantize activations, and the weights do without.
_FOR_ACTIVATIONS = re.compile(
    r"[._](input|output|activation|prob_output|attn|q|k|v)_(scale|scale_ub|zero_point|global_scale|amax|g_idx)$"
)


@dataclass(frozen=True)
class Scaled(PackedWeight):
    """Weight [r, c] = (number [r, c] - zero) * scale [r // block rows, c // block columns].

    Attributes:
        scale: the tensor of scales.
        height: rows of one matrix; experts are stacked matrices.
        block: rows and columns that share a scale.
        zero: the tensor of zero points, of the scales' shape.
        factor: a number that all scales are multiplied with.
    """

    scale: str
    height: int
    block: tuple[int, int]
    zero: str | None = None
    factor: float = 1.0

    def rows(self, stored: Checkpoint, start: int, stop: int) -> Floats:
        length = self.shape[-1]
        high, wide = self.block
        tall, groups = -(-self.height // high), -(-length // wide)
        row = np.arange(start, stop)
        place = row // self.height * tall + row % self.height // high
        first, last = int(place[0]), int(place[-1]) + 1

        def spread(name: str) -> Floats:
            values = numbers(stored, name, first, last, groups)[place - first]
            return values if groups == 1 else np.repeat(values, wide, axis=1)[:, :length]

        weights = numbers(stored, self.name, start, stop, length)
        if self.zero is not None:
            weights -= spread(self.zero)
        weights *= spread(self.scale)
        return weights if self.factor == 1.0 else weights * np.float32(self.factor)


def scaled(
    weight: TensorInfo, scale: TensorInfo, block: tuple[int, int] | None, zero: TensorInfo | None = None, factor: float = 1.0
) -> Scaled:
    """How a weight and its scales go together, told by their shapes.

    Args:
        block: rows and columns that share a scale, where config.json says so.

    Raises:
        CheckpointError: they do not go together.
    """
    if len(weight.shape) < 2 or not prod(weight.shape):
        raise misfit(weight, "a matrix")
    *stack, height, length = weight.shape
    n, several = prod(scale.shape), prod(stack)
    if block and scale.shape[-2:] == (-(-height // block[0]), -(-length // block[1])) and scale.shape[:-2] == tuple(stack):
        pass
    elif n == 1:
        block, height = (weight.n_rows, length), weight.n_rows
    elif n == several:
        block = (height, length)
    elif n == weight.n_rows:
        block = (1, length)
    elif scale.shape[:-1] == weight.shape[:-1] and scale.row_length and length % scale.row_length == 0:
        block = (1, length // scale.row_length)
    else:
        raise misfit(scale, f"its weight of shape {list(weight.shape)}")
    if zero is not None and prod(zero.shape) != n:
        raise misfit(zero, f"scales of shape {list(scale.shape)}")
    return Scaled(weight.name, weight.shape, scale.name, height, block, zero.name if zero else None, factor)


def scaled_weights(
    source: PackedSource, dtypes: Iterable[str], suffixes: Iterable[str], block: tuple[int, int] | None
) -> dict[str, Scaled]:
    """Every tensor of these types that has scales: the same name with one of the suffixes."""
    kinds, ends = set(dtypes), tuple(suffixes)
    found = {}
    for name, info in source.tensors.items():
        scale = next((name + end for end in ends if name + end in source.tensors), None)
        if info.dtype in kinds and scale is not None:
            zero = source.tensors.get(f"{name}_zero_point")
            found[name] = scaled(info, source.tensors[scale], block, zero)
    return found


def parts(weights: Iterable[Scaled]) -> set[str]:
    """The stored tensors of these weights."""
    return {part for w in weights for part in (w.name, w.scale, w.zero) if part is not None}


def for_activations(names: Iterable[str]) -> set[str]:
    """The stored tensors that serve activations only."""
    return {name for name in names if _FOR_ACTIVATIONS.search(name)}
