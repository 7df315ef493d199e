"""The loop: scales, mins and norms follow the gradient of the KL divergence from the teacher, by Adam, within a time.

Prior art: distilled weight quantization of mlx-lm (DWQ), which learns scales and biases from the teacher's likeliest tokens.
The learned numbers are factors around one, so one rate suits them all; it falls to zero with the time that is spent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.tune.divergence import TeacherRows, divergence, keep
from pipeline.tune.windows import Ids

log = logging.getLogger(__name__)

KEPT = 512  # of the teacher's likeliest tokens
RATE = 5e-4  # of a factor in the first full step
_WARM = 4  # steps until then: Adam's first ones are the sign of a single gradient, and all factors would move together
AT_A_STEP = 2  # windows
_LOGITS = 1 << 25  # numbers of logits that are computed at once
_FAILURES = 2  # checks without gain, one behind the other, that end it
_CHECKS = (0.25, 0.5, 0.75, 1.0)  # shares of the allowance after which the validation windows are asked
Network = Any
PerWindow = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A window and what the teacher says of it."""

    ids: Ids
    teacher: TeacherRows


@dataclass(slots=True)
class Allowance:
    """Until when to learn.

    Attributes:
        until: a moment of time.monotonic().
        steps: a number of steps, whatever time they take; None leaves it to the time.
    """

    until: float
    steps: int | None = None
    begun: float = field(default_factory=time.monotonic)

    def spent(self, steps: int) -> float:
        """The share that is spent after so many steps; 1 or more is the end."""
        if self.steps is not None:
            return steps / self.steps
        if self.until <= self.begun:
            return 1.0
        return (time.monotonic() - self.begun) / (self.until - self.begun)


@dataclass(frozen=True, slots=True)
class Learned:
    """What came of it; the KL divergences are of the validation windows, by torch."""

    before: PerWindow
    after: PerWindow
    steps: int
    tokens: int
    seconds: float


def teach(network: Network, windows: Sequence[Ids], enough: Callable[[int], bool]) -> Iterator[Lesson]:
    """What the network says of each window, until it is enough."""
    for i, ids in enumerate(windows):
        if enough(i):
            return
        with torch.no_grad():
            yield Lesson(ids, keep(_logits(network, [ids])[0], KEPT))


def judge(network: Network, lessons: Sequence[Lesson]) -> PerWindow:
    """The mean KL divergence of each window."""
    with torch.no_grad():
        return np.array([float(divergence(_logits(network, [one.ids])[0], one.teacher).mean()) for one in lessons])


def train(
    network: Network, lessons: Sequence[Lesson], validation: Sequence[Lesson], before: PerWindow, allowance: Allowance, *,
    seed: int, on_step: Callable[[float, float], None],
) -> Learned:  # fmt: skip
    """Learn what of the network has a gradient; in the end it holds the best that the validation windows saw.

    Args:
        before: as ``judge`` finds the validation windows at the start.
        on_step: called with the share of the allowance that is spent and the divergence of the last step.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    # The gradients are small, so Adam's epsilon must be far below its default.
    optimizer = torch.optim.Adam(parameters, lr=RATE, betas=(0.9, 0.98), eps=1e-12)
    log.info("validation %.4f before", before.mean())
    best = before
    kept = [p.detach().clone() for p in parameters]
    begun, checks, rate = time.monotonic(), list(_CHECKS), RATE
    spent, steps, tokens, failed = allowance.spent(0), 0, 0, 0
    order = _shuffled(len(lessons), seed)
    while spent < 1:
        chosen = [lessons[next(order)] for _ in range(AT_A_STEP)]
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - spent) * min(1.0, (steps + 1) / _WARM)
        loss = _step(network, chosen)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps, tokens = steps + 1, tokens + sum(len(one.ids) for one in chosen)
        spent = allowance.spent(steps)
        on_step(min(1.0, spent), loss)
        if spent >= checks[0]:
            checks = [share for share in checks if share > spent]
            found = judge(network, validation)
            log.info("step %d: KL divergence %.4f, validation %.4f", steps, loss, found.mean())
            if found.mean() < best.mean():
                best, kept, failed = found, [p.detach().clone() for p in parameters], 0
            else:
                _put_back(parameters, kept)
                rate, failed = rate / 4, failed + 1
                if failed == _FAILURES:
                    break
            spent = allowance.spent(steps)  # the check took its time too
    _put_back(parameters, kept)
    return Learned(before, best, steps, tokens, time.monotonic() - begun)


def _put_back(parameters: Sequence[Any], kept: Sequence[Any]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)


def _step(network: Network, chosen: Sequence[Lesson]) -> float:
    """Add up the gradients of some windows; gives their mean divergence."""
    total = 0.0
    width = len(chosen[0].ids)
    at_once = max(1, _LOGITS // (network.config.get_text_config().vocab_size * width))
    for i in range(0, len(chosen), at_once):
        group = chosen[i : i + at_once]
        logits = _logits(network, [one.ids for one in group])
        loss = sum(divergence(rows, one.teacher).mean() for rows, one in zip(logits, group, strict=True)) / len(chosen)
        loss.backward()
        total += float(loss.detach())
    return total


def _logits(network: Network, windows: Sequence[Ids]) -> Any:
    """Logits [windows, tokens, vocabulary]."""
    ids = torch.tensor(windows, device=next(network.parameters()).device)
    return network(input_ids=ids, use_cache=False).logits.float()


def _shuffled(n: int, seed: int) -> Iterator[int]:
    rng = np.random.default_rng(seed)
    while True:
        yield from (int(i) for i in rng.permutation(n))
