"""What is summed up of an input: what the rounded layers before it make of it, and how far that is from the original's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pipeline.format.ggml import Floats


@dataclass(frozen=True, slots=True)
class SumsOfBoth:
    """Sums over tokens, x being the rounded model's input.

    Attributes:
        hessian: float32 [columns, columns], of x x^T.
        cross: float32 [columns, columns], of (original - x) x^T.
        tokens: how many are in them.
    """

    hessian: Floats
    cross: Floats
    tokens: int

    @classmethod
    def of(cls, original: Floats, rounded: Floats) -> Self:
        """The sums over rows, float32 [tokens, columns] each."""
        missing: Floats = original - rounded
        return cls(rounded.T @ rounded, missing.T @ rounded, len(rounded))

    def __add__(self, other: SumsOfBoth) -> SumsOfBoth:
        return SumsOfBoth(self.hessian + other.hessian, self.cross + other.cross, self.tokens + other.tokens)
