"""How much memory a model will take, and the context that fits this machine: estimates, checked against real loads."""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass

from agent.errors import SprigError
from agent.files import human_size
from agent.models.file import ModelFile

STEP = 256  # llama.cpp pads a context to this
LEAST_CONTEXT = 1024
CONVERSATIONS, BATCH, CACHE = 4, 256, "f16"  # an engine's own, where it is not told
USUAL_CONTEXT = 8192  # where nothing is asked for: enough for an agent, and a cache that a board can hold
_BYTES = {"f16": 2.0, "q8_0": 1.0625}
_PROCESS = 30_000_000  # Python and llama.cpp in the child
_MARGIN = 1.1


def flash_attention(cache: str) -> bool:
    """Whether attention is computed in one pass: always for a quantized cache, which needs it, and else where it is faster.

    On the big ARM cores it is slower by a half and more (llama.cpp #27086); on x86 a prompt is computed an eighth faster.
    """
    return cache == "q8_0" or not platform.machine().lower().startswith(("arm", "aarch64"))


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


def need(file: ModelFile, *, context: int, sequences: int, batch: int, cache: str) -> Need:
    """Memory of a model with a context of so many tokens in all.

    The cache holds 2 or 1.0625 bytes for each number (F16, Q8_0); without flash attention the scores of one batch are kept for
    all heads in 32 bits. Source: llama.cpp's llama-kv-cache.cpp and llama-graph.cpp.
    """
    per = _BYTES[cache]
    window = min(context, -(-(file.window * sequences + batch) // STEP) * STEP) if file.window else 0
    kv = int(per * (file.cache_width * context + file.window_width * window)) + file.state * sequences
    scores = 0 if flash_attention(cache) else 4 * batch * file.n_head * context
    wide = 4 * batch * (4 * file.n_embd + 3 * file.n_ff)
    logits = 2 * 4 * sequences * file.n_vocab
    mask = 4 * batch * context
    return Need(file.weights, kv, scores + wide + logits + mask)


class ContextTooLarge(SprigError):
    """The context that was asked for cannot be had; a smaller one can."""


def choose_context(
    file: ModelFile, wanted: int | None, available: int, *, sequences: int, batch: int, cache: str
) -> tuple[int, Need]:
    """The context to make, in tokens, and what it needs.

    Args:
        file: the model.
        wanted: what was asked for; None takes what is usual, as far as the model was trained for it and it fits.
        available: bytes that may be used.
        sequences, batch, cache: as in ``need``.

    Raises:
        ContextTooLarge: so much context does not fit, or the model was not trained for it; says what would fit.
        SprigError: no context fits.
    """
    needs = functools.partial(need, file, sequences=sequences, batch=batch, cache=cache)

    def fits(context: int) -> bool:
        return needs(context=context).total * _MARGIN <= available

    longest = -(-file.n_ctx_train // STEP) * STEP
    target = -(-(wanted if wanted is not None else min(USUAL_CONTEXT, longest)) // STEP) * STEP
    if target > longest and wanted is not None:
        raise ContextTooLarge(f"{file.name} was trained for {file.n_ctx_train} tokens of context, and {wanted} were asked for")
    if fits(target):
        return target, needs(context=target)
    low, high = 0, target // STEP
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * STEP) else (low, middle)
    best = low * STEP
    least = min(LEAST_CONTEXT, longest)
    if wanted is None and best >= least:
        return best, needs(context=best)
    short = target if wanted is not None else least
    said = (
        f"{file.name} with a context of {short} needs {human_size(needs(context=short).total)} of memory and "
        f"{human_size(available)} are free; "
    )
    if best >= least:
        raise ContextTooLarge(f"{said}a context of {best} would fit: context={best} or -c {best}")
    raise SprigError(f"{said}take a smaller model or quantization, or close other programs")
