"""The inputs of a model's weights: several weights share one (q, k and v; gate and up), and it is measured once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Input:
    """What weights are multiplied with.

    Attributes:
        weights: GGUF names of the weights that it goes into, the first one first; that one names the input.
        columns: values of a token.
        matrices: 1, or how many matrices each of these weights has (experts, heads).
        routed: whether a router chooses among the matrices, so that each sees other tokens (``MUL_MAT_ID``).
        head: whether it goes into the head.
    """

    weights: tuple[str, ...]
    columns: int
    matrices: int
    routed: bool
    head: bool

    @property
    def name(self) -> str:
        return self.weights[0]

    @property
    def packed(self) -> int:
        """Values of a triangle of its second moment; of all matrices where each has its own tokens."""
        return self.matrices * self.columns * (self.columns + 1) // 2

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Input:
        """Raises KeyError or TypeError when it is something else."""
        weights, columns, matrices = tuple(map(str, told["weights"])), int(told["columns"]), int(told["matrices"])
        return cls(weights, columns, matrices, bool(told["routed"]), bool(told["head"]))
