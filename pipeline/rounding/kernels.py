"""Which innermost loops are used: compiled by numba where that is installed, else those in NumPy."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from pipeline.format.ggml import Floats
from pipeline.rounding import inner, search

log = logging.getLogger(__name__)

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
    try:
        from pipeline.rounding import compiled
    except (ImportError, RuntimeError) as e:  # not installed, of another NumPy, or without a place for what it compiles
        log.info("rounding goes on in NumPy, about three times slower than with numba (%s)", e)
        return NUMPY
    return Kernels(
        compiled.fitted, compiled.rounding_loss, compiled.best, compiled.feed, compiled.refit, compiled.settle, compiled.move
    )
