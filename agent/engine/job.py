"""One answer in the making, inside the worker: what is to be computed for it, what it may say, when it ends."""

from __future__ import annotations

import codecs
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from agent.engine.llama import Context, LlamaModel
from agent.engine.sampling import Sampler, Sampling, log_probabilities
from agent.engine.sequences import Slot, common

if TYPE_CHECKING:
    from agent.dialects.constrain import Constraint

_LOOP_SPAN, _LOOP_PERIOD, _LOOP_EVERY = 240, 48, 32  # so many tokens that repeat with at most this period are a loop
_WORD_STARTS = ("a", "A", "1")  # what usually follows a forced text; signs may follow too, and then cost a token more


@dataclass(slots=True)
class Timing:
    """Moments on the monotonic clock, and counts."""

    start: float
    prefilled: float = 0.0
    first: float = 0.0
    end: float = 0.0
    prompt: int = 0
    cached: int = 0
    source: str = ""
    generated: int = 0
    forced: int = 0
    decodes: int = 0

    def to_dict(self) -> dict[str, Any]:
        prefilled = self.prefilled or self.end
        return {
            "prompt_tokens": self.prompt,
            "cached_tokens": self.cached,
            "cache_source": self.source,
            "generated_tokens": self.generated,
            "forced_tokens": self.forced,
            "decodes": self.decodes,
            "prefill_seconds": prefilled - self.start,
            "decode_seconds": max(0.0, self.end - prefilled),
            "first_token_seconds": (self.first or self.end) - self.start,
        }


@dataclass(slots=True)
class GenerationJob:
    """One answer and how far it is."""

    id: int
    owner: str
    tokens: list[int]
    prefix: int
    model: LlamaModel
    constraint: Constraint | None
    settings: Sampling
    max_tokens: int
    n_ctx: int
    deadline: float | None
    max_thinking: int | None
    force: bool
    timing: Timing
    by_token: bool = False  # the parent wants the text of each token
    logprobs: int | None = None  # and its probability, with those of so many others
    sampler: Sampler = field(init=False)
    slot: Slot | None = None
    pending: list[int] = field(default_factory=list)  # to compute, from ``fed`` on; the last one's logits choose what comes next
    fed: int = 0
    out: list[int] = field(default_factory=list)  # chosen and not yet told to the parent
    likely: list[Any] = field(default_factory=list)  # of ``out``, where it is wanted; None for what was forced
    generated: list[int] = field(default_factory=list)
    thought: int = 0
    ended: str = ""  # why the answer is over
    told: float = 0.0  # when the parent was told of new text
    _decoder: codecs.IncrementalDecoder = field(init=False)

    def __post_init__(self) -> None:
        self.sampler = Sampler(self.model, self.settings)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def left(self) -> int:
        return len(self.pending) - self.fed

    @property
    def only_reads(self) -> bool:
        """Whether nothing is to be written: its tokens are put into the cache for a question that is still to come."""
        return self.max_tokens == 0

    def advance(self, context: Context, row: int) -> None:
        """Choose what comes after the logits in this row of the batch, and queue it; or end."""
        if not self.timing.prefilled:
            self.timing.prefilled = time.monotonic()
        else:
            self.timing.decodes += 1
        token = self._choose(context, row)
        if token is None:
            return
        self.pending, self.fed = [token], 0
        self._take(token, forced=False)
        if self.logprobs is not None:
            self.likely[-1] = log_probabilities(context.logits(row), token, self.logprobs)
        if not self.timing.first:
            self.timing.first = time.monotonic()
        self._thinking_budget()
        self.feed_forced()
        self._limits()

    def _choose(self, context: Context, row: int) -> int | None:
        token = self.sampler.sample(context, row)
        if not self._allowed(token):
            constraint = self.constraint
            assert constraint is not None
            hint = None if constraint.free else constraint.next_chars()
            found = self.sampler.sample_allowed(context, row, self._allowed, hint)
            if found is None:
                self.ended = "stop" if constraint.may_end() else "stuck"
                return None
            token = found
        if self.model.ends(token):
            self.ended = "stop"
            return None
        return token

    def _allowed(self, token: int) -> bool:
        if self.constraint is None:
            return True
        if self.model.ends(token):
            return self.constraint.may_end()
        piece = self.model.piece(token)
        return bool(piece) and self.constraint.accepts(piece, self.model.special(token))

    def _take(self, token: int, *, forced: bool) -> None:
        if self.constraint is not None:
            self.constraint.commit(self.model.piece(token), self.model.special(token))
            self.thought = self.thought + 1 if self.constraint.phase == "thinking" else 0
        if forced:
            self.sampler.accept(token)
            self.timing.forced += 1
        self.generated.append(token)
        self.out.append(token)
        if self.logprobs is not None:
            self.likely.append(None)
        self.timing.generated += 1

    def feed_forced(self) -> None:
        """Queue the text that must come next, as far as its tokens are certain."""
        if self.constraint is not None and self.force and (stretches := self.constraint.forced()):
            self._queue(self._certain(stretches))

    def _queue(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            # A control token where the constraint wants plain text is left to the draw.
            if not self._allowed(token) or self.model.ends(token) or self._full:
                return
            self._take(token, forced=True)
            self.pending.append(token)

    def _certain(self, stretches: Sequence[tuple[str, bool]]) -> list[int]:
        """The tokens of a forced text that stay the same whatever word follows it.

        A tokenizer may join the end of the text with what comes behind it, so the text is tokenized with each likely
        continuation, and what all agree on is kept.
        """
        assert self.constraint is not None
        previous = self.pending[-1] if self.pending else (self.tokens[-1] if self.tokens else None)
        follow = self.constraint.peek("".join(text for text, _ in stretches))
        starts = _WORD_STARTS if follow is None else sorted(follow)[:12] or ("",)  # of "", nothing comes behind it
        ways = [self.model.tokenize([*stretches, (start, False)] if start else stretches, after=previous) for start in starts]
        kept = reduce(lambda kept, ids: kept[: common(kept, ids)], ways)
        ends = list(accumulate(len(self.model.piece(token)) for token in kept))
        return kept[: bisect_right(ends, sum(len(text.encode()) for text, _ in stretches))]

    def _thinking_budget(self) -> None:
        if self.max_thinking is None or self.constraint is None or self.thought <= self.max_thinking:
            return
        close = self.constraint.close_thinking()
        self._queue(self.model.tokenize([(close, True)], after=self.pending[-1]) if close else [])
        self.thought = 0

    @property
    def _full(self) -> bool:
        """Whether there is room for no further token, in the context or in the limit."""
        return self.timing.generated >= min(self.max_tokens, self.n_ctx - len(self.tokens))

    def _limits(self) -> None:
        if self.constraint is not None and self.constraint.phase == "done":
            self.ended = "stop"
        elif self.timing.generated >= self.max_tokens:
            self.ended = "length"
        elif self.deadline is not None and time.monotonic() > self.deadline:
            self.ended = "time"
        elif self._full:
            self.ended = "context"
        elif self.timing.generated % _LOOP_EVERY == 0 and _loops(self.generated):
            self.ended = "loop"

    def take_text(self, *, final: bool = False) -> dict[str, Any]:
        """Tokens that the parent has not got yet, and their text; a character that is not whole waits for its rest.

        Where it is wanted, also the text that each token adds (``texts``), its bytes as Latin-1 (``raw``), and None or its
        log-probability with [id, log-probability, bytes] of the likeliest (``likely``).
        """
        ids, self.out = self.out, []
        raw = [self.model.piece(token) for token in ids]
        if not self.by_token:
            return {"ids": ids, "text": self._decoder.decode(b"".join(raw), final)}
        texts = [self._decoder.decode(piece) for piece in raw]
        likely, self.likely = self.likely, []
        return {
            "ids": ids,
            "text": "".join(texts) + self._decoder.decode(b"", final),
            "texts": texts,
            "raw": [piece.decode("latin-1") for piece in raw],
            "likely": [
                one and [one[0], [[token, p, self.model.piece(token).decode("latin-1")] for token, p in one[1]]]
                for one in likely
            ],
        }  # fmt: skip


def _loops(tokens: list[int]) -> bool:
    """Whether the end of an answer says the same again and again."""
    if len(tokens) < _LOOP_SPAN:
        return False
    tail = tokens[-_LOOP_SPAN:]
    return any(tail[p:] == tail[:-p] for p in range(1, _LOOP_PERIOD + 1))
