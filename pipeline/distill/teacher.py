"""What the teacher says: asked in each step, or once, its likeliest tokens kept on the disk.

The kept file has, for each prediction that counts, k int32 token ids, k float16 logarithms of their probabilities at the run's
temperature, and the float32 logarithm of the mass of all other tokens: 6 k + 4 bytes. The three parts lie one behind the other.
Float16 moves a logarithm by up to 1/2048 of it, so the k + 1 masses are made to sum to one when they are read.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.errors import OutputError
from agent.files import atomic_write, exclusive, free_disk, human_size, reserve
from pipeline.distill.batches import TrainingBatch, groups, n_scored, to_batch
from pipeline.distill.data.lesson import TrainingSequence
from pipeline.distill.learner import answers
from pipeline.distill.loss import log_shares

Tensor = Any
_SECONDS_BETWEEN_MARKS = 10.0


@dataclass(frozen=True, slots=True)
class Taught:
    """What the teacher says of a batch.

    Attributes:
        logs: [scored, outcomes], logarithms of probabilities at the temperature; None of an encoder.
        ids: int64 [scored, k], the outcomes but for the last; None when they are all tokens.
        hidden: the teacher's side of each pair; the last hidden state is ``last``.
        attention: its attention maps.
    """

    logs: Tensor = None
    ids: Tensor = None
    hidden: Sequence[Tensor] = ()
    attention: Sequence[Tensor] = ()
    last: Tensor = None


@dataclass(frozen=True, slots=True)
class LiveTeacher:
    """A network that is asked each time."""

    network: Any
    pairs: tuple[tuple[int, int], ...]
    vocabulary: int
    temperature: float
    encoder: bool = False
    hidden: bool = False
    attention: bool = False

    def teach(self, batch: TrainingBatch) -> Taught:
        """What it says of a batch. Runs in the precision of the caller."""
        with torch.no_grad():
            hidden = self.hidden or self.encoder
            out = answers(self.network, batch.ids, batch.mask, encoder=self.encoder, hidden=hidden, attention=self.attention)
            states, maps = out["hidden"], out["attention"]
            logs = None
            if not self.encoder:
                logits = out["logits"].flatten(0, 1)[batch.rows, : self.vocabulary].float()
                logs = log_shares(logits / self.temperature)
            return Taught(
                logs, None,
                [states[j] for _, j in self.pairs] if self.hidden else (),
                [maps[j - 1] for _, j in self.pairs] if self.attention else (),
                states[-1] if self.encoder else None,
            )  # fmt: skip


@dataclass(frozen=True, slots=True)
class KeptTeacher:
    """The file, mapped.

    Attributes:
        starts: first row of each sequence, and the number of rows behind the last.
    """

    starts: tuple[int, ...]
    ids: Any
    values: Any
    rest: Any
    vocabulary: int
    device: Any

    def teach(self, batch: TrainingBatch) -> Taught:
        """What was kept of a batch."""
        rows = np.concatenate([np.arange(self.starts[n], self.starts[n + 1]) for n in batch.numbers])
        ids = torch.from_numpy(self.ids[rows].astype(np.int64)).to(self.device)
        logs = torch.from_numpy(self.values[rows].astype(np.float32)).to(self.device)
        if ids.shape[-1] < self.vocabulary:
            logs = torch.cat([logs, torch.from_numpy(self.rest[rows]).to(self.device)[:, None]], -1)
        return Taught(logs.log_softmax(-1), ids)


@dataclass(frozen=True, slots=True)
class TeacherFile:
    """Where the teacher's likeliest tokens are kept, or will be.

    Attributes:
        path: the file; ``path.json`` beside it says how much of it is done.
        k: tokens of a prediction.
        vocabulary: of both networks.
    """

    path: Path
    sequences: Sequence[TrainingSequence]
    k: int
    vocabulary: int
    starts: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        counts = np.cumsum([0, *map(n_scored, self.sequences)])
        object.__setattr__(self, "starts", tuple(int(n) for n in counts))

    @property
    def nbytes(self) -> int:
        return self.starts[-1] * (6 * self.k + 4)

    def need_room(self) -> None:
        """Raises OutputError when the disk has too little left."""
        there = self.path.stat().st_size if self.path.exists() else 0
        if self.nbytes - there > (free := free_disk(self.path)):
            raise OutputError(
                f"the teacher's top {self.k} of {self.starts[-1]:,} predictions need {human_size(self.nbytes)} on the disk, "
                f"{human_size(free)} free at {self.path.parent}: make room, or ask for a smaller --top-k"
            )

    def done(self) -> int:
        """Sequences that are in the file already."""
        try:
            return int(json.loads(self._mark.read_bytes())["done"]) if self.path.stat().st_size == self.nbytes else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def fill(self, teacher: LiveTeacher, at_once: int, device: Any, on_done: Callable[[int, int], None]) -> None:
        """Ask the teacher about the sequences that are not in the file. OutputError when the disk has no room."""
        n = len(self.sequences)
        if (begin := self.done()) >= n:
            return
        self.need_room()
        with exclusive(self.path) as fd:
            reserve(fd, self.nbytes, self.path)
        ids, values, rest = self._maps("r+")
        marked = time.monotonic()
        for group in groups(range(begin, n), at_once):
            logs = teacher.teach(to_batch(self.sequences, group, device)).logs
            rows = slice(self.starts[group[0]], self.starts[group[-1] + 1])
            best, chosen = logs.topk(self.k, -1)
            ids[rows], values[rows] = chosen.int().cpu().numpy(), best.half().cpu().numpy()
            rest[rows] = _others(logs, chosen).cpu().numpy()
            if time.monotonic() - marked > _SECONDS_BETWEEN_MARKS or group[-1] == n - 1:
                for part in (ids, values, rest):
                    part.flush()
                atomic_write(self._mark, json.dumps({"done": group[-1] + 1}))
                marked = time.monotonic()
            on_done(group[-1] + 1, n)

    def open(self, device: Any) -> KeptTeacher:
        """What is kept, to learn from."""
        return KeptTeacher(self.starts, *self._maps("r"), self.vocabulary, device)

    @property
    def _mark(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def _maps(self, mode: Any) -> tuple[Any, Any, Any]:
        rows, k = self.starts[-1], self.k
        ids = np.memmap(self.path, np.int32, mode, 0, (rows, k))
        values = np.memmap(self.path, np.float16, mode, 4 * rows * k, (rows, k))
        return ids, values, np.memmap(self.path, np.float32, mode, 6 * rows * k, (rows,))


def _others(logs: Tensor, chosen: Tensor) -> Tensor:
    """The logarithm of the mass of all tokens but the chosen; a very small one when there are none."""
    return logs.scatter(-1, chosen, -math.inf).logsumexp(-1).clamp_min(-1e4)
