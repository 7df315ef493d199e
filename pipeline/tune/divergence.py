"""The KL divergence of a student from a teacher of whom the likeliest tokens are kept, and the rest as one.

That sum is a lower bound of the whole divergence (the log-sum inequality), and close to it where the rest is small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Tensor = Any  # torch is not typed here
_LEAST = 1e-7


@dataclass(frozen=True, slots=True)
class TeacherRows:
    """What the teacher says behind each token of a window.

    Attributes:
        ids: int32 [tokens, k], the likeliest tokens.
        logs: float32 [tokens, k], the logarithms of their probabilities.
        rest: float32 [tokens], the probability of all others together.
    """

    ids: Tensor
    logs: Tensor
    rest: Tensor


def keep(logits: Tensor, k: int) -> TeacherRows:
    """The k likeliest tokens of each row of logits [tokens, vocabulary]."""
    total = logits.logsumexp(-1, keepdim=True)
    values, ids = logits.topk(min(k, logits.shape[-1]), -1)
    logs = values - total
    return TeacherRows(ids.int(), logs, (1 - logs.exp().sum(-1)).clamp_min(0))


def divergence(logits: Tensor, teacher: TeacherRows) -> Tensor:
    """KL(teacher || student) of each row, in nats: float32 [tokens]."""
    total = logits.logsumexp(-1, keepdim=True)
    logs = logits.gather(-1, teacher.ids.long()) - total
    known = (teacher.logs.exp() * (teacher.logs - logs)).sum(-1)
    rest = (1 - logs.exp().sum(-1)).clamp_min(_LEAST)
    return known + teacher.rest * (teacher.rest.clamp_min(_LEAST).log() - rest.log())


def divergence_of(logits: np.ndarray[Any, np.dtype[np.float32]], teacher: TeacherRows) -> np.ndarray[Any, np.dtype[np.float32]]:
    """``divergence`` of llama.cpp's logits, which may lie in shared memory."""
    found: np.ndarray[Any, np.dtype[np.float32]] = (
        divergence(torch.from_numpy(logits.copy()).to(teacher.logs.device), teacher).cpu().numpy()
    )
    return found


def blind(teacher: TeacherRows, vocabulary: int) -> float:
    """The mean divergence of one who takes every token for equally likely."""
    others = vocabulary - teacher.ids.shape[-1]
    known = (teacher.logs.exp() * (teacher.logs + math.log(vocabulary))).sum(-1)
    rest = teacher.rest.clamp_min(_LEAST).log() + math.log(vocabulary / max(1, others))
    return float((known + teacher.rest * rest).mean())
