"""Chooses the tokens that stay: the most used ones, each with all that it is merged of."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping

from pipeline.prune.vocab.lexicon import Lexicon


def closed(lexicon: Lexicon, tokens: Iterable[int]) -> set[int]:
    """These tokens and all that they are merged of."""
    found: set[int] = set()
    waiting = list(tokens)
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += lexicon.parts.get(number, ())
    return found


def by_order(lexicon: Lexicon, total: float) -> dict[int, float]:
    """The use that the tokenizer's own order foretells, ``total`` for all: the token of rank r is used as often as 1 / (r + 3).

    Tokens are learned the most frequent first, and frequencies of words fall so (Zipf's law); the 3 flattens the head of it.
    """
    ranked = sorted(lexicon.texts)
    whole = sum(1 / (rank + 3) for rank in range(len(ranked)))
    return {number: total / (rank + 3) / whole for rank, number in enumerate(ranked)}


def choose(lexicon: Lexicon, needed: set[int], uses: Mapping[int, float], size: int) -> set[int]:
    """At most ``size`` tokens.

    One token after another goes, the one whose loss costs a text the least; only one that no other is merged of can go. Its uses
    become uses of its parts. Of equals, the later in the tokenizer's order goes first.

    Args:
        lexicon: all tokens.
        needed: ids that stay, closed; at most ``size``.
        uses: how often a token is used in the text.
        size: of the vocabulary that is left.
    """
    weight = {number: float(uses.get(number, 0.0)) for number in lexicon.texts}
    users = Counter(part for number, pair in lexicon.parts.items() for part in pair if number in weight)

    def entry(number: int) -> tuple[float, int]:
        return weight[number] * lexicon.cost.get(number, 1), -number

    free = [entry(number) for number in weight if not users[number] and number not in needed]
    heapq.heapify(free)
    kept = set(weight)
    while len(kept) > size:
        number = -heapq.heappop(free)[1]
        kept.discard(number)
        for part in lexicon.parts.get(number, ()):
            weight[part] += weight[number]
            users[part] -= 1
            if not users[part] and part not in needed:
                heapq.heappush(free, entry(part))
    return kept
