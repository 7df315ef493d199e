"""How an embedding model is loaded: how long a text may be, and how many tokens are computed at once, within the memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.device.features import repacked_types
from agent.errors import SprigError
from agent.files import human_size
from agent.models.file import ModelFile
from agent.models.memory import MemoryBudget, Need, need

USUAL = 2048  # tokens of one text, where nothing is asked for and the model was trained for more
TEXTS = 64  # in one batch at most
_SHORTER = (1024, 512, 256)  # where memory is short
_PACK = 512  # tokens of several texts in one batch: more makes no core busier
_LEAST_PACK = 64
_SCORES = 64_000_000  # bytes
_WORD = 300  # bytes of llama.cpp's tables for one token of the vocabulary; measured with 30,522 and 250,002
_MARGIN = 1.05  # how far the estimate may be off


@dataclass(frozen=True, slots=True)
class EmbeddingPlan:
    """How an embedding model is loaded.

    Attributes:
        context: tokens that one text may have.
        batch: tokens that llama.cpp computes at once at most, a multiple of TEXTS.
        pack: tokens of several texts that are put into one batch.
        repack: whether the weights are held in the order that this processor computes fastest.
        need: what that takes.
    """

    context: int
    batch: int
    pack: int
    repack: bool
    need: Need


def plan_embedding(file: ModelFile, budget: MemoryBudget, *, pooling: str, context: int | None = None) -> EmbeddingPlan:
    """How to load a model for embeddings within a budget.

    Args:
        pooling: "mean", "cls" or "last".
        context: tokens that one text may have; by default 2048, less where the model was trained for less or memory is short.

    Raises:
        SprigError: the model was not trained for such a text, or there is no memory for it.
    """
    most = file.n_ctx_train
    if context is not None and not 1 <= context <= most:
        raise SprigError(f"{file.name} takes texts of 1 to {most} tokens, and {context} were asked for")
    tries = [context] if context is not None else [min(USUAL, most), *(n for n in _SHORTER if n < most)]
    plans = [_plan(file, pooling, tokens) for tokens in tries]
    found = next((plan for plan in plans if plan.need.total * _MARGIN <= budget.size), None)
    if found is None:
        wanted = human_size(plans[-1].need.total)
        raise SprigError(
            f"{file.name} needs {wanted} of memory for texts of {tries[-1]} tokens, and {budget.words}; "
            "take a smaller model or quantization, or close other programs"
        )
    kinds = repacked_types() & (file.matrices.keys() | file.tied.keys())
    packed = _plan(file, pooling, found.context, repacked=kinds)
    return replace(packed, repack=True) if kinds and packed.need.total * _MARGIN <= budget.size else found


def _plan(file: ModelFile, pooling: str, context: int, repacked: frozenset[str] = frozenset()) -> EmbeddingPlan:
    # llama.cpp keeps a row of scores, one for each word, for every token of a batch, though nobody asked for them.
    pack = min(context, max(_LEAST_PACK, min(_PACK, _SCORES // max(1, 4 * file.n_vocab))))
    # A text may be computed in pieces only where its last token says all, and no token looks ahead.
    batch = pack if pooling == "last" and not file.bidirectional else context
    batch = -(-batch // TEXTS) * TEXTS  # llama.cpp aborts where its texts cannot share a batch evenly
    takes = need(file, context=context, sequences=1, batch=batch, cache="f16", repacked=repacked)
    scores = 4 * batch * file.n_vocab * (1 if file.bidirectional else 2)  # an encoder has no head that computes them
    cache = takes.cache if not file.bidirectional or file.state else 0
    process = takes.process + _WORD * file.n_vocab
    return EmbeddingPlan(
        context, batch, pack, False, replace(takes, cache=cache, compute=takes.compute + scores, process=process)
    )
