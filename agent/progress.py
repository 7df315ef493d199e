"""How far a job is: the one kind of step that all tell who take long, with what is counted in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

Unit = Literal["bytes", "tokens", "windows", "tensors", "answers", "tool calls", ""]
OnProgress = Callable[["Progress"], None]

_PARTS = 1000  # of a stage of which only a share is known


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage of a job is.

    A stage that does something tells so when it begins; what is whole the first time that it is told of was there already.

    Attributes:
        stage: "download", "quantize", "check" ...
        done, total: how much of how much; a total of 0 says that nobody knows how long it takes.
        unit: what is counted, in plain words; empty where nothing is, and the numbers are a share.
        item: the file or tensor that was worked on, untrusted.
        words: what else is to be said of it, in few words.
    """

    stage: str
    done: int
    total: int
    unit: Unit
    item: str = ""
    words: str = ""

    @classmethod
    def of_share(cls, stage: str, share: float, words: str = "") -> Self:
        """A stage of which only the share is known that is done, 0 to 1."""
        return cls(stage, int(_PARTS * min(1.0, share)), _PARTS, "", words=words)

    @classmethod
    def begun(cls, stage: str) -> Self:
        """A stage that takes nobody knows how long."""
        return cls(stage, 0, 0, "")

    @property
    def share(self) -> float:
        """That is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    @property
    def ended(self) -> bool:
        """Whether all of it is done."""
        return 0 < self.total <= self.done
