"""What a number must fulfil, and which decimals do: as the nearest float, which a reader makes of them, will be compared."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Interval:
    """What a number must fulfil.

    Attributes:
        low, high: the least and greatest value; None for no bound.
        open_low, open_high: whether the bound itself is excluded.
        step: what it is a multiple of; None for anything.
    """

    low: Fraction | None = None
    high: Fraction | None = None
    open_low: bool = False
    open_high: bool = False
    step: Fraction | None = None

    def negated(self) -> Interval:
        """The same on the other side of zero."""
        low, high = None if self.high is None else -self.high, None if self.low is None else -self.low
        return Interval(low, high, self.open_high, self.open_low, self.step)


def exact(number: int | float) -> Fraction:
    """The value of a JSON number as it is written: 0.1 is one tenth.

    Raises:
        ValueError, OverflowError: it is not finite.
    """
    if isinstance(number, float) and not number.is_integer():
        return Fraction(repr(number))
    return Fraction(number)


def for_floats(bounds: Interval) -> Interval:
    """The widest bounds within which the nearest float of every decimal fulfils the given ones."""
    return _high_for_floats(_high_for_floats(bounds).negated()).negated()


def _high_for_floats(bounds: Interval) -> Interval:
    if bounds.high is None:
        return bounds
    high, is_open = _below(bounds.high, bounds.open_high)
    return replace(bounds, high=high, open_high=is_open)


def _below(bound: Fraction, is_open: bool) -> tuple[Fraction, bool]:
    """The highest decimal whose nearest float is still at most (below, if open) ``bound``; whether it is itself excluded."""
    try:
        near = float(bound)
    except OverflowError:
        return bound, is_open
    if is_open and (exact(near) if near else Fraction(0)) >= bound:
        before = math.nextafter(near, -math.inf)
        return (Fraction(near) + Fraction(before)) / 2 if math.isfinite(before) else bound, True
    if not is_open and bound.denominator == 1 and near > bound:
        return Fraction(math.nextafter(near, -math.inf)), False
    if not is_open and bound.denominator == 1 and near < bound:
        return Fraction(near), False
    return bound, is_open


@dataclass(frozen=True, slots=True)
class Side:
    """The allowed magnitudes of the numbers of one sign, in units: from ``low`` to ``high``, multiples of ``step``."""

    low: int
    high: int | None
    step: int = 1

    def holds(self, value: int) -> bool:
        return value >= self.low and (self.high is None or value <= self.high) and value % self.step == 0

    def meets(self, first: int, last: int, grain: int = 1) -> bool:
        """Whether one of them that is a multiple of ``grain``, as ``first`` is, lies from ``first`` to ``last``."""
        if first >= self.low and self.step == 1 and (self.high is None or first <= self.high):
            return True
        first = max(first, self.low)
        if self.high is not None:
            last = min(last, self.high)
        step = math.lcm(self.step, grain)
        return first <= last and last // step * step >= first


def sides(bounds: Interval, unit: int, step: int) -> tuple[Side, Side]:
    """For the numbers from zero up, and for those below."""
    return _side(bounds, unit, step, 0), _side(bounds.negated(), unit, step, 1)


def _side(bounds: Interval, unit: int, step: int, least: int) -> Side:
    first, last = least, None
    if bounds.low is not None:
        scaled = bounds.low * unit
        first = max(first, math.floor(scaled) + 1 if bounds.open_low else math.ceil(scaled))
    if bounds.high is not None:
        scaled = bounds.high * unit
        last = math.ceil(scaled) - 1 if bounds.open_high else math.floor(scaled)
    return Side(first, last, step)
