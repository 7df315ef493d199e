"""Which innermost loops are used: compiled by numba where that is installed, else those in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from pipeline.format.ggml import Floats
from pipeline.rounding import inner, search

Pair = tuple[Floats, Floats]


@dataclass(frozen=True, slots=True)
class Kernels:
    """Functions of ``search`` and ``inner``, or others that do the same."""

    fitted: Callable[..., Pair] = search.fitted
    rounding_loss: Callable[..., Floats] = search.rounding_loss
    best: Callable[..., Pair] = search.best
    feed: Callable[..., tuple[Floats, Floats, Floats, Floats]] = inner.feed
    refit: Callable[..., Pair] = inner.refit
    settle: Callable[..., None] = inner.settle
    move: Callable[..., None] = inner.move


NUMPY = Kernels()


@cache
def kernels() -> Kernels:
    """The fastest that there are."""
    import os
    if os.environ.get("K") == "numpy":
        return NUMPY
    from pipeline.rounding import compiled
    return Kernels(compiled.fitted, compiled.rounding_loss, compiled.best, compiled.feed, compiled.refit, compiled.settle, compiled.move)
