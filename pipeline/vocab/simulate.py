"""Simulates llama.cpp's tokenizers of merged characters, to choose the form of a vocabulary under which llama.cpp gives the
original's ids, before anything is written.

Written after the behaviour of ``llm_tokenizer_spm``, ``llm_tokenizer_bpe`` and ``tokenizer_st_partition`` in
src/llama-vocab.cpp.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

SPACE = "\u2581"
Merges = Sequence[tuple[str, str]]  # in the order in which they are tried
Priority = Callable[[str, str], float | None]  # smaller merges first; None: the two do not merge


def merge(text: str, priority: Priority) -> list[str]:
    """Characters of ``text``, merged pair by pair, the best pair first, the leftmost of equals."""
    parts: list[str | None] = list(text)
    before, after = list(range(-1, len(parts) - 1)), [*range(1, len(parts)), -1]
    queue: list[tuple[float, int, str, str]] = []

    def offer(left: int) -> None:
        right = after[left] if left >= 0 else -1
        if right >= 0:
            a, b = parts[left] or "", parts[right] or ""
            rank = priority(a, b)
            if rank is not None:
                heapq.heappush(queue, (rank, left, a, b))

    for i in range(len(parts)):
        offer(i)
    while queue:
        _, left, a, b = heapq.heappop(queue)
        right = after[left]
        if parts[left] != a or right < 0 or parts[right] != b:
            continue
        parts[left], parts[right] = a + b, None
        after[left] = after[right]
        if after[right] >= 0:
            before[after[right]] = left
        offer(before[left])
        offer(left)
    return [part for part in parts if part]


def partition(text: str, specials: Sequence[str], greedy: Container[str] = ()) -> list[tuple[str, bool]]:
    """The text cut at special tokens, each with whether it is one; the longest token (in bytes) is searched first.

    The white space behind a token of ``greedy`` is lost.
    """
    fragments = [(text, False)]
    for special in specials:
        if special not in text:
            continue
        cut: list[tuple[str, bool]] = []
        for fragment, found in fragments:
            if found or special not in fragment:
                cut.append((fragment, found))
                continue
            for i, plain in enumerate(fragment.split(special)):
                if i:
                    cut.append((special, True))
                rest = plain.lstrip(" \t\n\v\f\r") if i and special in greedy else plain
                if rest:
                    cut.append((rest, False))
        fragments = cut
    return fragments


@dataclass(frozen=True, slots=True)
class Form:
    """A vocabulary of raw UTF-8 pieces, as llama.cpp would hold it.

    Attributes:
        ids: text of every token -> id, as written.
        specials: texts found anywhere before the rest is merged (CONTROL, USER_DEFINED, UNKNOWN), longest first.
        priority: which pairs merge.
        prefix: a space is put before text that starts, or follows a special token.
        lines: runs of newlines are split from the rest ("gemma4", "sarvam-moe").
        whole: such a run that is a token is taken whole ("gemma4").
        greedy: specials that swallow the white space behind them.
    """

    ids: Mapping[str, int]
    specials: Sequence[str]
    priority: Priority
    prefix: bool = False
    lines: bool = False
    whole: bool = False
    greedy: frozenset[str] = frozenset()

    def encode(self, text: str) -> list[int]:
        """Ids, without BOS and EOS, special tokens parsed."""
        ids: list[int] = []
        follows = True
        for fragment, special in partition(text, self.specials, self.greedy):
            if special:
                ids.append(self.ids[fragment])
                follows = True
                continue
            raw = (" " if self.prefix and follows else "") + fragment
            follows = False
            raw = raw.replace(" ", SPACE)
            for piece in re.findall(r"[^\n]+|\n+", raw) if self.lines else [raw]:
                if self.whole and piece[0] == "\n" and piece in self.ids:
                    ids.append(self.ids[piece])
                else:
                    ids += [i for part in merge(piece, self.priority) for i in self._one(part)]
        return ids

    def _one(self, part: str) -> list[int]:
        known = self.ids.get(part)
        return [known] if known is not None else [self.ids.get(f"<0x{b:02X}>", -1) for b in part.encode()]


def by_score(scores: Mapping[str, float]) -> Priority:
    """SentencePiece's rule: two pieces merge when their concatenation is a token; the higher score goes first."""

    def priority(left: str, right: str) -> float | None:
        score = scores.get(left + right)
        return None if score is None else -score

    return priority


def by_rank(merges: Merges) -> Priority:
    """BPE's rule: the listed pairs merge, in the order of the list."""
    ranks: dict[tuple[str, str], int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault(pair, rank)
    return lambda left, right: ranks.get((left, right))
