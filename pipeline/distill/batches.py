"""Sequences in the order of learning, and as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from pipeline.distill.data.lesson import TrainingSequence

Tensor = Any


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Some sequences, padded behind their ends.

    Attributes:
        numbers: of the sequences among all.
        ids, mask: int64 [batch, tokens]; the mask is 1 where there is a token.
        rows: int64 [scored], which positions of the flat [batch * tokens] logits predict a token that counts.
        targets: int64 [scored], these tokens.
    """

    numbers: tuple[int, ...]
    ids: Tensor
    mask: Tensor
    rows: Tensor
    targets: Tensor


def n_scored(sequence: TrainingSequence) -> int:
    """Predictions that count. The first token is predicted by none."""
    return sum(sequence.scored[1:])


def to_batch(sequences: Sequence[TrainingSequence], numbers: Sequence[int], device: Any) -> TrainingBatch:
    """The sequences of these numbers as tensors."""
    width = max(len(sequences[n].ids) for n in numbers)
    ids, mask, scored = (np.zeros((len(numbers), width), np.int64) for _ in range(3))
    for i, n in enumerate(numbers):
        length = len(sequences[n].ids)
        ids[i, :length], mask[i, :length], scored[i, :length] = sequences[n].ids, 1, sequences[n].scored
    where, what = np.nonzero(scored[:, 1:])
    values = (ids, mask, where * width + what, ids[where, what + 1])
    return TrainingBatch(tuple(numbers), *(torch.from_numpy(np.ascontiguousarray(one)).to(device) for one in values))


def in_order(n: int, batch: int, seed: int, step: int) -> list[int]:
    """The sequences of a step: all of them once, drawn by lot, then all again in another order."""
    out: list[int] = []
    epoch, order = -1, np.empty(0, np.int64)
    for position in range(step * batch, (step + 1) * batch):
        if position // n != epoch:
            epoch = position // n
            order = _shuffled(n, seed, epoch)
        out.append(int(order[position % n]))
    return out


@lru_cache(2)
def _shuffled(n: int, seed: int, epoch: int) -> Any:
    return np.random.default_rng((seed, epoch)).permutation(n)


def steps_for(sequences: Sequence[TrainingSequence], batch: int, seed: int, tokens: int | None) -> int:
    """Steps that read so many tokens, or each sequence once."""
    n, counts = len(sequences), [len(s.ids) for s in sequences]
    if tokens is None:
        return -(-n // batch)
    read, step = 0, 0
    while read < tokens:
        read += sum(counts[i] for i in in_order(n, batch, seed, step))
        step += 1
    return step


def groups(numbers: Sequence[int], at_once: int) -> Iterator[Sequence[int]]:
    """A step's sequences in parts that fit into memory."""
    for start in range(0, len(numbers), at_once):
        yield numbers[start : start + at_once]
