"""Layers of torch whose weights are codes times learned scales. A weight matrix exists only while it is used.

Its gradient exists only until it is summed up into those of the scales, so a model needs the memory of its codes and of one
matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.format.ggml import Floats
from pipeline.tune.places import inverse
from pipeline.tune.scales import ScaledCodes

Tensor = Any  # torch is not typed here


class ScaledWeights(nn.Module):  # type: ignore[misc]  # torch is not typed
    """A matrix [rows, columns] of codes, scales and mins. Scales and mins are learned as factors around one.

    Args:
        blocks: of the tensor, its rows in the GGUF's order.
        order: row i of the matrix is row order[i] of the blocks; None keeps them.
        factors: float32 [rows], what each row of the blocks is divided by in the matrix.
    """

    def __init__(self, blocks: ScaledCodes, order: np.ndarray[Any, Any] | None, factors: Floats | None) -> None:
        super().__init__()
        rows = slice(None) if order is None else order
        divisor = np.ones(len(blocks.scales), np.float32) if factors is None else factors

        def buffer(name: str, values: np.ndarray[Any, Any]) -> None:
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values[rows])), persistent=False)

        self.order = order
        buffer("codes", blocks.codes)
        buffer("scales", blocks.scales)
        buffer("divisor", divisor[:, None])
        self.scale = nn.Parameter(torch.zeros_like(self.scales))
        self.has_mins = blocks.mins is not None
        if blocks.mins is not None and blocks.offsets is not None:
            buffer("mins", blocks.mins)
            buffer("offsets", blocks.offsets)
            self.min = nn.Parameter(torch.zeros_like(self.mins))

    def learned(self) -> tuple[Tensor, Tensor | None]:
        """The scales and mins [rows, blocks] as they would be stored, in float16; gradients pass by that rounding.

        A scale takes its min along, so that the one factor stretches a block around zero and the other moves it.
        """
        stretch = 1 + self.scale
        return _halved(self.scales * stretch), _halved(self.mins * stretch * (1 + self.min)) if self.has_mins else None

    def stored(self, values: Tensor) -> Floats:
        """Scales or mins in the order of the GGUF's rows."""
        found: Floats = values.cpu().numpy()
        return found if self.order is None else found[inverse(self.order)]

    def matrix(self, scales: Tensor, mins: Tensor | None, rows: Tensor | None = None) -> Tensor:
        """The weights, float32 [rows, columns]; ``rows`` picks some, and then the scales and mins are those of these rows."""
        codes = self.codes if rows is None else self.codes[rows]
        divisor = self.divisor if rows is None else self.divisor[rows]
        n, blocks = scales.shape
        out = codes.float().view(n, blocks, -1) * (scales / divisor)[:, :, None]
        if mins is not None:
            offsets = self.offsets if rows is None else self.offsets[rows]
            groups = offsets.shape[1]
            steps = offsets.view(n, blocks, -1) * (mins / divisor)[:, :, None]
            out = (out.view(n, groups, -1) + steps.reshape(n, groups, 1)).view(n, blocks, -1)
        return out.view(n, -1)

    def slopes(self, gradient: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The gradients of scales and mins, from that of the matrix (or of these rows of it)."""
        codes = self.codes if rows is None else self.codes[rows]
        divisor = self.divisor if rows is None else self.divisor[rows]
        n, blocks = len(codes), self.scales.shape[1]
        scales = torch.einsum("rbi,rbi->rb", gradient.view(n, blocks, -1), codes.float().view(n, blocks, -1)) / divisor
        if not self.has_mins:
            return scales, None
        offsets = self.offsets if rows is None else self.offsets[rows]
        groups = gradient.view(n, offsets.shape[1], -1).sum(2)
        return scales, (groups * offsets).view(n, blocks, -1).sum(2) / divisor


def _halved(values: Tensor) -> Tensor:
    return values + (values.half().float() - values).detach()


class _Product(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed
    """Inputs times the transposed matrix; both directions make the matrix anew."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, scales: Tensor, mins: Tensor | None, weights: ScaledWeights) -> Tensor:
        ctx.weights = weights
        ctx.save_for_backward(inputs, scales, mins)
        return inputs @ weights.matrix(scales, mins).T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, scales, mins = ctx.saved_tensors
        back = gradient @ ctx.weights.matrix(scales, mins) if ctx.needs_input_grad[0] else None
        by_matrix = gradient.flatten(0, -2).T @ inputs.flatten(0, -2)
        return back, *ctx.weights.slopes(by_matrix), None


class _Rows(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed
    """The rows of the matrix that belong to token ids."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, scales: Tensor, mins: Tensor | None, weights: ScaledWeights) -> Tensor:
        ctx.weights, ctx.shape, flat = weights, scales.shape, ids.flatten()
        ctx.save_for_backward(flat)
        rows = weights.matrix(scales[flat], None if mins is None else mins[flat], flat)
        return rows.view(*ids.shape, -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (ids,) = ctx.saved_tensors
        found = ctx.weights.slopes(gradient.flatten(0, -2), ids)
        spread = [None if one is None else one.new_zeros(ctx.shape).index_add_(0, ids, one) for one in found]
        return None, *spread, None


class ScaledLinear(nn.Module):  # type: ignore[misc]  # torch is not typed
    """In the place of nn.Linear."""

    def __init__(self, weights: ScaledWeights, bias: Tensor | None) -> None:
        super().__init__()
        self.weights, self.bias = weights, bias

    def forward(self, inputs: Tensor) -> Tensor:
        out = _Product.apply(inputs, *self.weights.learned(), self.weights)
        return out if self.bias is None else out + self.bias


class ScaledEmbedding(nn.Module):  # type: ignore[misc]  # torch is not typed
    """In the place of nn.Embedding and of those that multiply what they look up (Gemma)."""

    def __init__(self, weights: ScaledWeights, factor: Any) -> None:
        super().__init__()
        self.weights, self.factor = weights, factor

    def forward(self, ids: Tensor) -> Tensor:
        return _Rows.apply(ids, *self.weights.learned(), self.weights) * self.factor


class Factors(nn.Module):  # type: ignore[misc]  # torch is not typed
    """Makes a norm's weights (or a bias) of its values in the GGUF, times factors around one, less what the GGUF adds."""

    def __init__(self, values: Floats, added: float, order: np.ndarray[Any, Any] | None) -> None:
        super().__init__()
        self.added, self.order = added, order
        values = values if order is None else values[order]
        self.register_buffer("values", torch.from_numpy(values.copy()), persistent=False)

    def learned(self, factors: Tensor) -> Tensor:
        """The values as they would be stored."""
        return self.values * (1 + factors)

    def stored(self, factors: Tensor) -> Floats:
        """The learned values in the order of the GGUF."""
        found: Floats = self.learned(factors).cpu().numpy()
        return found if self.order is None else found[inverse(self.order)]

    def forward(self, factors: Tensor) -> Tensor:
        return self.learned(factors) - self.added
