"""How much memory a model will take, and how it is loaded to fit: estimates, checked against ggml's own log of its buffers."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from agent.device.features import repacked_by, repacked_types
from agent.device.machine import available_memory
from agent.errors import SprigError
from agent.files import human_size
from agent.models.file import ModelFile

Cache = Literal["f16", "q8_0"]

STEP = 256  # llama.cpp pads a context to this
LEAST_CONTEXT = 1024
CONVERSATIONS, BATCH = 4, 256  # an engine's own, where it is not told
USUAL_CONTEXT = 8192  # where nothing is asked for: enough for an agent, and a cache that a board can hold
_SHORT_CONTEXT = 4096  # what is shorter is no room for an agent: better a quantized cache
_CACHES: tuple[Cache, ...] = ("f16", "q8_0")
_PACKED_ROWS = 4  # that ggml takes together, or 8; it repacks no matrix with a row left over, as that of Granite's 49155 words
CACHE_BYTES = {"f16": 2.0, "q8_0": 1.0625}
_PROCESS = 30_000_000  # Python and llama.cpp in the child
_MARGIN = 1.05  # how far the estimate may be off
FREE_PART = 0.7  # of the free memory: the rest is for what other programs, and this one's screen and tools, will want


@dataclass(frozen=True, slots=True)
class Processor:
    """Another machine's processor, as far as it decides how a model is loaded.

    Attributes:
        machine: as ``platform.machine()`` there.
        features: as agent.device.features names them.
    """

    machine: str
    features: frozenset[str]

    @property
    def repacked(self) -> frozenset[str]:
        """Types of weights that ggml holds in another order there."""
        return repacked_by(self.features)


def flash_attention(cache: str) -> bool:
    """Whether attention is computed in one pass: for a quantized cache, which needs it.

    Elsewhere it costs more than it gives. On the big ARM cores it is slower by a half and more (llama.cpp #27086). On x86 a long
    prompt is computed up to three quarters faster, but a token that is written behind 1,000 others takes nearly twice as long,
    and one of eight that are read there three times.
    """
    return cache == "q8_0"


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a loaded model takes.

    Attributes:
        weights: mapped from the file, or a copy of it.
        cache: K, V and recurrent state of all sequences.
        compute: buffers of one batch.
        process: what the child takes besides.
    """

    weights: int
    cache: int
    compute: int
    process: int = _PROCESS

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.compute + self.process


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Bytes that may be taken, and where the number comes from, in words."""

    size: int
    words: str

    @classmethod
    def of(cls, memory: int | None) -> MemoryBudget:
        """What a person allowed; else a part of what this machine has free."""
        if memory is not None:
            return cls(memory, f"{human_size(memory)} may be taken")
        size = int(FREE_PART * available_memory())
        return cls(
            size, f"{human_size(size)} may be taken, {FREE_PART * 100:.0f} % of what is free (the option memory allows more)"
        )


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How a model is loaded.

    Attributes:
        context: tokens of all sequences together.
        cache: type of K and V.
        repack: whether the weights are held in the order that this processor computes fastest, instead of mapped from the file.
        need: what that takes.
    """

    context: int
    cache: Cache
    repack: bool
    need: Need

    @property
    def words(self) -> str:
        """For a log: what was chosen, and what it takes."""
        weights = "repacked for this processor" if self.repack else "mapped from the file"
        need, size = self.need, human_size
        return (
            f"context {self.context} in {self.cache}, weights {weights}; {size(need.total)}: weights {size(need.weights)}, "
            f"cache {size(need.cache)}, computation {size(need.compute)}, process {size(need.process)}"
        )


def need(
    file: ModelFile,
    *,
    context: int,
    sequences: int,
    batch: int,
    cache: Cache,
    repacked: Collection[str] = (),
) -> Need:
    """Memory of a model with a context of so many tokens in all.

    The cache holds 2 or 1.0625 bytes for each number (F16, Q8_0). Of one batch, ggml keeps the widest stretch of a layer: that of
    the feed-forward part, or, without flash attention, the scores of all heads in 32 bits.
    Source: llama-kv-cache.cpp and llama-graph.cpp of llama.cpp, and its log for models of four shapes.

    Args:
        repacked: types of weights that are held in another order. An embedding of such a type that is the output
            too is held twice.
    """
    per = CACHE_BYTES[cache]
    window = min(context, -(-(file.window * sequences + batch) // STEP) * STEP) if file.window else 0
    kv = int(per * (file.cache_width * context + file.window_width * window)) + file.state * sequences
    wide = 4 * batch * (4 * file.n_embd + 3 * file.n_ff)
    if flash_attention(cache):
        compute = wide + 2 * batch * context
    else:
        compute = max(wide, 4 * batch * (file.n_head * context + 11 * file.n_embd // 2)) + 4 * batch * context
    logits = 4 * sequences * file.n_vocab
    again = sum(size for kind, size in file.tied.items() if kind in repacked and file.n_vocab % _PACKED_ROWS == 0)
    return Need(file.weights + again, kv, compute + logits)


class ContextTooLarge(SprigError):
    """The context that was asked for cannot be had; a smaller one can."""


def plan_load(
    file: ModelFile,
    budget: MemoryBudget,
    *,
    context: int | None = None,
    cache: str | None = None,
    repack: bool | None = None,
    sequences: int = CONVERSATIONS,
    batch: int = BATCH,
    processor: Processor | None = None,
) -> LoadPlan:
    """How to load a model within a budget; what is None is chosen.

    Args:
        file: the model.
        budget: what it may take.
        context: tokens; by default what is usual, as far as the model was trained for it and it fits.
        cache: by default F16, but Q8_0 before the context has to fall below 4096 tokens.
        repack: by default where this processor has kernels for it, and there is memory for what is then held twice.
        sequences, batch: as in ``need``.
        processor: by default that of this machine.

    Raises:
        ContextTooLarge: so much context does not fit, or the model was not trained for it; says what would fit.
        SprigError: no context fits.
    """
    caches: tuple[Cache, ...] = tuple(kind for kind in _CACHES if cache in (None, kind))
    if not caches:
        raise SprigError(f"the cache can be f16 or q8_0, not {cache!r}")
    longest = longest_context(file)
    if context is not None and context > longest:
        raise ContextTooLarge(f"{file.name} was trained for {file.n_ctx_train} tokens of context, and {context} were asked for")
    target = _whole_steps(context if context is not None else min(USUAL_CONTEXT, longest))
    kinds = (processor.repacked if processor else repacked_types()) & (file.matrices.keys() | file.tied.keys())
    needs = functools.partial(need, file, sequences=sequences, batch=batch, repacked=kinds if repack else ())
    enough = target if context is not None else min(_SHORT_CONTEXT, target)
    found = {kind: _longest(functools.partial(needs, cache=kind), target, budget.size) for kind in caches}
    chosen = next((kind for kind in caches if found[kind] >= enough), caches[-1])
    best, least = found[chosen], least_context(file)
    if best < (target if context is not None else least):
        short = target if context is not None else least
        wanted = human_size(needs(context=short, cache=chosen).total)
        said = f"{file.name} with a context of {short} needs {wanted} of memory, and {budget.words}; "
        if best >= least:
            raise ContextTooLarge(f"{said}a context of {best} would fit (the option context)")
        raise SprigError(f"{said}take a smaller model or quantization, or close other programs")
    if repack is None:
        packed = needs(context=best, cache=chosen, repacked=kinds)
        repack = bool(kinds) and packed.total * _MARGIN <= budget.size
    return LoadPlan(best, chosen, repack, needs(context=best, cache=chosen, repacked=kinds if repack else ()))


def longest_context(file: ModelFile) -> int:
    """The most tokens of context that a model is loaded with: what it was trained for, in whole steps."""
    return _whole_steps(file.n_ctx_train)


def least_context(file: ModelFile) -> int:
    """The least tokens of context that a model is loaded with."""
    return min(LEAST_CONTEXT, longest_context(file))


def _whole_steps(context: int) -> int:
    return -(-context // STEP) * STEP


def _longest(needs: functools.partial[Need], target: int, available: int) -> int:
    """The longest context up to ``target`` that fits, in tokens; 0 when none does."""

    def fits(context: int) -> bool:
        return needs(context=context).total * _MARGIN <= available

    if fits(target):
        return target
    low, high = 0, target // STEP
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * STEP) else (low, middle)
    return low * STEP
