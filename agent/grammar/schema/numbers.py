"""Numbers within bounds: exact for integers of any size, and for decimals as the nearest float will be compared.

All is computed with integers: a number with at most ``places`` decimals is its value times ten to the power of ``places``. What
has been written so far stands for a window of such integers, and may be gone on with if the window holds one that is allowed.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from agent.grammar.nodes import Leaf

MAX_DIGITS = 300  # before the point: what every reader takes for a finite number
_MAX_PLACES = 400  # enough for the shortest decimal of every float
_MAX_STEP_PLACES = 40
_POWERS = [10**k for k in range(_MAX_PLACES + MAX_DIGITS + 2)]
_DIGITS = frozenset("0123456789")


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


def _for_floats(bounds: Interval) -> Interval:
    """Bounds whose high one is the highest decimal with a nearest float that fulfils the given one."""
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
class _Side:
    """The allowed magnitudes of the numbers of one sign, in units: from ``low`` to ``high``, multiples of ``step``."""

    low: int
    high: int | None
    step: int = 1

    def holds(self, value: int) -> bool:
        return value >= self.low and (self.high is None or value <= self.high) and value % self.step == 0

    def meets(self, first: int, last: int) -> bool:
        """Whether one of them lies from ``first`` to ``last``."""
        first = max(first, self.low)
        if self.high is not None:
            last = min(last, self.high)
        return first <= last and last // self.step * self.step >= first


def _side(bounds: Interval, unit: int, step: int, least: int) -> _Side:
    first, last = least, None
    if bounds.low is not None:
        scaled = bounds.low * unit
        first = max(first, math.floor(scaled) + 1 if bounds.open_low else math.ceil(scaled))
    if bounds.high is not None:
        scaled = bounds.high * unit
        last = math.ceil(scaled) - 1 if bounds.open_high else math.floor(scaled)
    return _Side(first, last, step)


def _sides(bounds: Interval, unit: int, step: int) -> tuple[_Side, _Side]:
    """For the numbers from zero up, and for those below."""
    return _side(bounds, unit, step, 0), _side(bounds.negated(), unit, step, 1)


class Number(Leaf):
    """A number in plain decimal notation, without an exponent.

    A state is (whether it is negative, its digits as one integer, how many stand before the point, how many behind; -1 without a
    point).

    Args:
        bounds: what it must fulfil.
        integer: it has no point.

    Raises:
        ValueError: a step with more than 40 decimals.
    """

    __slots__ = ("_any", "_decimals", "_integer", "_places", "_shortest", "_wholes")

    def __init__(self, bounds: Interval, integer: bool) -> None:
        super().__init__()
        self._integer = integer
        self._any = bounds == Interval()
        step = bounds.step
        places = 0 if integer else _MAX_PLACES
        if step is not None:
            places = 0
            while places <= _MAX_STEP_PLACES and (step * _POWERS[places]).denominator != 1:
                places += 1
            if places > _MAX_STEP_PLACES:
                raise ValueError("a step with too many decimals")
        unit = _POWERS[places]
        whole_step = 1 if step is None else step.numerator  # the least whole multiple, the fraction being reduced
        unit_step = 1 if step is None else int(step * unit)
        self._places = places
        self._wholes = _sides(bounds, 1, whole_step)
        self._decimals: tuple[_Side, _Side] | None = None
        least = [side.low for side in self._wholes]
        if not integer and places:
            self._decimals = _sides(_for_floats(_for_floats(bounds).negated()).negated(), unit, unit_step)
            least = [min(low, side.low // unit) for low, side in zip(least, self._decimals, strict=True)]
        self._shortest = [bisect_right(_POWERS, low) for low in least]  # digits before the point, by sign

    def start(self) -> Any:
        return (False, 0, 0, -1)

    def accepting(self, state: Any) -> bool:
        negative, value, before, behind = state
        if not before or not behind:
            return False
        if self._any:
            return not negative or value > 0
        if behind < 0:
            return self._wholes[negative].holds(value)
        assert self._decimals is not None
        return self._decimals[negative].holds(value * _POWERS[self._places - behind])

    def step(self, state: Any, char: str) -> Any:
        negative, value, before, behind = state
        if char == "-":
            following = (True, 0, 0, -1)
            return following if state == self.start() and self._alive(following) else None
        if char == ".":
            if behind >= 0 or not before or self._decimals is None:
                return None
            following = (negative, value, before, 0)
        elif char not in _DIGITS:
            return None
        elif behind >= 0:
            following = (negative, value * 10 + int(char), before, behind + 1)
        elif before and not value:
            return None  # no digits after a leading zero
        else:
            following = (negative, value * 10 + int(char), before + 1, -1)
        if self._any:
            # What it is does not matter, only whether it is zero.
            following = (following[0], min(following[1], 1), following[2], following[3])
        return following if self._alive(following) else None

    def _alive(self, state: Any) -> bool:
        negative, value, before, behind = state
        if behind >= 0:
            if behind > self._places:
                return False
            if self._any:
                return behind < self._places or not negative or value > 0
            assert self._decimals is not None
            left = _POWERS[self._places - behind]
            return self._decimals[negative].meets(value * left, (value + 1) * left - 1)
        if before > MAX_DIGITS:
            return False
        if self._any:
            return not (self._integer and negative and before and not value)
        return self._whole_alive(negative, value, before)

    def _whole_alive(self, negative: bool, value: int, before: int) -> bool:
        if not before:  # a sign alone takes any number of digits
            return self._meets(negative, 0, _POWERS[MAX_DIGITS] - 1)
        high = self._wholes[negative].high
        # Zero takes no more digits; anything else at least as many as make it as long as the least that is allowed.
        for more in range(1) if not value else range(max(0, self._shortest[negative] - before), MAX_DIGITS - before + 1):
            first = value * _POWERS[more]
            if self._meets(negative, first, first + _POWERS[more] - 1):
                return True
            if high is not None and first > high:
                return False
        return False

    def _meets(self, negative: bool, first: int, last: int) -> bool:
        """Whether the whole numbers from ``first`` to ``last``, or what is written from them on, may be."""
        if self._wholes[negative].meets(first, last):
            return True
        unit = _POWERS[self._places]
        return self._decimals is not None and self._decimals[negative].meets(first * unit, (last + 1) * unit - 1)

    def first(self, state: Any) -> frozenset[str] | None:
        return frozenset(char for char in "-.0123456789" if self.step(state, char) is not None)

    def open(self, state: Any) -> bool:
        return any(self.step(state, char) is not None for char in "0123456789.-")
