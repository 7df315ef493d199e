"""An axis: from a value to its place in pixels, and the round numbers that are written beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

NOTHING = 1e-9  # of a logarithmic axis: what is smaller counts as 0
_MARGIN = 0.07  # of the whole, at both ends
_MANTISSAS = ((1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 5), (1, 3), (1,))


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from ``low`` to ``high`` lie between the pixels ``start`` and ``end``; logarithmic ones are positive."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place of a value; of one beyond the ends, the nearer end."""
        value = min(max(value, self.low), self.high)
        part = (self._scaled(value) - self._scaled(self.low)) / (self._scaled(self.high) - self._scaled(self.low))
        return self.start + part * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Round numbers on the axis, as many as there are up to ``most``, and at least two where that can be."""
        if not self.log:
            return _round_numbers(self.low, self.high, most)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for mantissas in _MANTISSAS:
            found = [v for d in decades for m in mantissas if self.low <= (v := float(Decimal(str(m)).scaleb(d))) <= self.high]
            if len(found) <= most:
                break
        if len(found) < 3 and self.high < 100 * self.low:
            return _round_numbers(self.low, self.high, most)
        return found[:: max(1, -(-len(found) // most))]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value


def linear_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """An axis that holds finite values with some room at both ends; a part below zero only where there are negative values."""
    low, high = min(values), max(values)
    room = max((high - low) * _MARGIN, 0.02 * max(abs(low), abs(high))) or 1.0  # never so little that its numbers look alike
    return Axis(low - room if low < 0 else max(0.0, low - room), high + room, start, end)


def log_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """The same, logarithmic; values of as good as zero come to lie on its low end, which is below the smallest of the others."""
    positive = [v for v in values if v > NOTHING] or [1.0]
    low, high = min(positive), max(positive)
    room = max((high / low) ** _MARGIN, 1.15)
    return Axis(low / room**2 if len(positive) < len(values) else low / room, high * room, start, end, log=True)


def plain(value: float) -> str:
    """A number as a person writes it: 0.0005, 0.05, 120."""
    return f"{Decimal(f'{value:.6g}').normalize():f}"


def _round_numbers(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / most
    step = 10.0 ** math.floor(math.log10(rough))
    step = next(step * m for m in (1, 2, 2.5, 5, 10) if step * m >= rough * (1 - 1e-9))
    found = [round(i * step, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return found if len(found) > 1 else _round_numbers(low, high, 2 * most)
