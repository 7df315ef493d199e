"""The losses: how far two distributions over tokens are apart, and two networks' hidden states and attention.

Divergences with temperature: Hinton et al., "Distilling the Knowledge in a Neural Network" (2015). Where only the teacher's
likeliest k tokens are known, all others are one more outcome, for the teacher and for the student. Merging outcomes never makes
a divergence of this kind larger, so that is a lower bound of the whole, exact when k is the whole vocabulary; and a student that
puts too much or too little on the others is told so, which a loss over the k alone would not do.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

Tensor = Any  # torch is not typed here
_LEAST = -1e4  # the logarithm of nothing: times its exponential it is 0, where minus infinity is not a number


def log_shares(logits: Tensor, ids: Tensor | None = None) -> Tensor:
    """Logarithms of probabilities.

    Args:
        logits: [rows, vocabulary], divided by the temperature already.
        ids: int64 [rows, k], the tokens that are asked for; None asks for all.

    Returns:
        [rows, vocabulary], or [rows, k + 1] with all other tokens as the last; [rows, k] when there are no others.
    """
    if ids is None:
        return logits.log_softmax(-1)
    total = logits.logsumexp(-1, keepdim=True)
    known = logits.gather(-1, ids) - total
    if ids.shape[-1] == logits.shape[-1]:
        return known
    others = logits.scatter(-1, ids, -math.inf).logsumexp(-1, keepdim=True) - total
    return torch.cat([known, others], -1)


def divergence(teacher: Tensor, student: Tensor, kind: str) -> Tensor:
    """How far the student is from the teacher, in nats: [rows], of logarithms of probabilities [rows, outcomes].

    ``kind``: "forward" is KL(teacher || student), "reverse" KL(student || teacher), "js" the mean of both from their mean.
    """
    teacher, student = teacher.clamp_min(_LEAST), student.clamp_min(_LEAST)
    if kind == "forward":
        return _kl(teacher, student)
    if kind == "reverse":
        return _kl(student, teacher)
    middle = torch.logaddexp(teacher, student) - math.log(2)
    return (_kl(teacher, middle) + _kl(student, middle)) / 2


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum(-1)


def distilled(teacher: Tensor, logits: Tensor, ids: Tensor | None, temperature: float, kind: str) -> Tensor:
    """The divergence at a temperature, times its square so that its gradient is as large at any: [rows].

    Args:
        teacher: as ``log_shares`` gives it for the same temperature and ids.
        logits: the student's, [rows, vocabulary].
    """
    return temperature**2 * divergence(teacher, log_shares(logits / temperature, ids), kind)


def language(logits: Tensor, targets: Tensor) -> Tensor:
    """The language-model loss of each row, in nats: what the text really says next."""
    return functional.cross_entropy(logits, targets, reduction="none")


def apart(teacher: Tensor, student: Tensor, mask: Tensor) -> Tensor:
    """Squared distance of hidden states [batch, tokens, width] per token, beside the teacher's own size: 1 is what zeros get."""
    keep = mask.bool()
    return (student[keep] - teacher[keep]).square().sum() / teacher[keep].square().sum().clamp_min(1e-12)


def attended(teacher: Tensor, student: Tensor, mask: Tensor) -> Tensor:
    """KL divergence of attention maps [batch, heads, tokens, tokens], the mean over heads first: they may differ in number."""
    p, q = (a.float().mean(1)[mask.bool()].clamp_min(1e-9).log() for a in (teacher, student))
    return _kl(p, q).mean()


def embedding(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean of the hidden states over the tokens that are there: [batch, width]."""
    there = mask[..., None].to(hidden.dtype)
    return (hidden * there).sum(1) / there.sum(1).clamp_min(1)


def turned(teacher: Tensor, student: Tensor) -> Tensor:
    """One minus the cosine between embeddings, the mean over the batch."""
    return (1 - functional.cosine_similarity(teacher, student, dim=-1)).mean()
