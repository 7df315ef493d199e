"""Numbers within bounds and of a sensible length: what a model writes digit by digit would otherwise never have to end.

All is computed exactly, with integers: a number with at most ``places`` decimals is its value times ten to the power of
``places``. What has been written so far stands for a window of such integers, and may be gone on with if the window holds one
that is allowed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import lru_cache
from typing import Any, NamedTuple

from agent.grammar.nodes import Leaf
from agent.grammar.schema.interval import Interval, Side, for_floats, sides

MAX_DIGITS = 300  # before the point, whatever the bounds are: what every reader takes for a finite number
_WHOLE = 20  # digits before the point where no bound asks for more: any 64-bit integer
_SIGNIFICANT = 17  # digits of a decimal: any float
_ZEROS = 20  # behind the point of 0.000...
_PLACES = 400  # of the units: the last digit of the least number with an exponent has 339
_MAX_STEP_PLACES = 40
_LEAST, _MOST = 10 ** (_PLACES - 323), 10 ** (_PLACES + 308) - 1  # of a number with an exponent: it is finite, and not zero
_MAX_POWER = 3  # digits of an exponent
_POWERS = [10**k for k in range(_PLACES + 2 * MAX_DIGITS)]
_DIGITS = frozenset("0123456789")


class _Written(NamedTuple):
    """What there is of a number.

    Attributes:
        negative: it has a sign.
        value: its digits as one integer.
        before, behind: how many digits stand before the point and behind it; -1 behind without a point.
        left: how many more may stand where the last one stands.
        power: of the exponent: its sign, its digits as one integer, how many they are; None without one.
    """

    negative: bool
    value: int
    before: int
    behind: int
    left: int
    power: tuple[str, int, int] | None = None


class Number(Leaf):
    """A number in decimal notation, perhaps with an exponent; -0 is written as 0.

    Where nothing is said about its multiples, a decimal has at most 17 significant digits and may have an exponent of at most
    three digits; the multiples of something are written without an exponent. A whole number has at most 20 digits, or as many as
    its bounds have.

    Args:
        bounds: what it must fulfil.
        integer: it has neither point nor exponent.

    Raises:
        ValueError: a step with more than 40 decimals.
    """

    __slots__ = ("_decimals", "_free", "_most", "_places", "_scaled", "_stepped", "_wholes")

    def __init__(self, bounds: Interval, integer: bool) -> None:
        super().__init__()
        step = bounds.step
        places = 0 if integer else _PLACES
        if step is not None:
            places = 0
            while places <= _MAX_STEP_PLACES and (step * _POWERS[places]).denominator != 1:
                places += 1
            if places > _MAX_STEP_PLACES:
                raise ValueError("a step with too many decimals")
        whole_step = 1 if step is None else step.numerator  # the least whole multiple, the fraction being reduced
        self._free = bounds == Interval()
        self._stepped = step is not None
        self._places = places
        self._wholes = sides(bounds, 1, whole_step)
        self._decimals: tuple[Side, Side] | None = None
        if not integer and places:
            unit_step = 1 if step is None else int(step * _POWERS[places])
            self._decimals = sides(for_floats(bounds), _POWERS[places], unit_step)
        self._scaled: list[Side] = []  # numbers with an exponent
        if self._decimals is not None and step is None:
            tops = (_MOST if side.high is None else min(side.high, _MOST) for side in self._decimals)
            self._scaled = [Side(max(side.low, _LEAST), top) for side, top in zip(self._decimals, tops, strict=True)]
        self._most = [self._digits(side) for side in self._wholes]

    def _digits(self, side: Side) -> int:
        """How many digits a whole number of a sign may have."""
        needed = side.high if side.high is not None else 10 * (side.low + side.step)
        return min(MAX_DIGITS, max(_WHOLE, bisect_right(_POWERS, needed)))

    def start(self) -> Any:
        return _Written(False, 0, 0, -1, self._most[0])

    def accepting(self, state: Any) -> bool:
        at: _Written = state
        if not at.before or not at.behind:
            return False
        if at.power is not None:
            sign, value, count = at.power
            low, high = self._exponents(at)
            return count > 0 and low <= (-value if sign == "-" else value) <= high
        if at.behind < 0:
            return self._wholes[at.negative].holds(at.value)
        assert self._decimals is not None
        return self._decimals[at.negative].holds(at.value * _POWERS[self._places - at.behind])

    def step(self, state: Any, char: str) -> Any:
        following = self._write(state, char)
        return following if following is not None and self._alive(following) else None

    def first(self, state: Any) -> frozenset[str] | None:
        found = {char for char in self._candidates(state) if self.step(state, char) is not None}
        return frozenset(found | {"E"} if "e" in found else found)

    def open(self, state: Any) -> bool:
        return any(self.step(state, char) is not None for char in self._candidates(state))

    def _candidates(self, at: _Written) -> str:
        if at.power is not None:
            return "0123456789+-"
        return "0123456789e" if at.behind >= 0 else "0123456789.e" if at.before else "0123456789-"

    # What is written.

    def _write(self, at: _Written, char: str) -> _Written | None:
        if at.power is not None:
            return self._write_power(at, at.power, char)
        if char == "-":
            return _Written(True, 0, 0, -1, self._most[1]) if at == self.start() else None
        if char in "eE":
            whole = at.before and at.behind
            return at._replace(power=("", 0, 0)) if whole and self._scaled else None
        if char == ".":
            if at.behind >= 0 or not at.before or self._decimals is None:
                return None
            return at._replace(behind=0, left=self._behind(at))
        if char not in _DIGITS or not at.left:
            return None
        digit = int(char)
        if self._free:  # which digits they are does not matter, only how many there are behind the zeros
            digit = 0 if at.value else min(digit, 1)
        value = at.value * 10 + digit
        if at.behind < 0:
            # No digits after a leading zero.
            return None if at.before and not at.value else _Written(at.negative, value, at.before + 1, -1, at.left - 1)
        left = _SIGNIFICANT if value and not at.value and not self._stepped else at.left
        return _Written(at.negative, value, at.before, at.behind + 1, left - 1)

    def _write_power(self, at: _Written, power: tuple[str, int, int], char: str) -> _Written | None:
        sign, value, count = power
        if char in "+-":
            return at._replace(power=(char, 0, 0)) if not sign and not count else None
        if char not in _DIGITS or count == _MAX_POWER:
            return None
        return at._replace(power=(sign, value * 10 + int(char), count + 1))

    def _behind(self, at: _Written) -> int:
        """How many digits may follow a point: of zero, how many zeros before another digit."""
        if self._stepped:
            return self._places
        return max(1, _SIGNIFICANT - at.before) if at.value else _ZEROS

    # Whether it can be ended.

    def _alive(self, at: _Written) -> bool:
        if at.power is not None:
            return self._power_alive(at, *at.power)
        if at.behind >= 0:
            return self._decimal_alive(at) or self._scaled_alive(at)
        return self._whole_alive(at) or self._scaled_alive(at)

    def _power_alive(self, at: _Written, sign: str, value: int, count: int) -> bool:
        low, high = self._exponents(at)
        if low > high:
            return False
        signs = (sign,) if sign or count else ("+", "-")
        for more in range(0 if count else 1, _MAX_POWER - count + 1):
            first, last = value * _POWERS[more], (value + 1) * _POWERS[more] - 1
            spans = [(-last, -first) if sign == "-" else (first, last) for sign in signs]
            if any(first <= high and last >= low for first, last in spans):
                return True
        return False

    def _exponents(self, at: _Written) -> tuple[int, int]:
        """The least and the greatest exponent that what stands before it may have; the least is greater where there is none."""
        if not at.value:
            assert self._decimals is not None
            return (-999, 999) if self._decimals[at.negative].holds(0) else (1, 0)
        low, high = _shifts(self._scaled[at.negative], at.value)
        moved = _PLACES - max(0, at.behind)
        return low - moved, high - moved

    def _decimal_alive(self, at: _Written) -> bool:
        assert self._decimals is not None
        side, below = self._decimals[at.negative], self._places - at.behind
        if at.value or self._stepped:
            first = at.value * _POWERS[below]
            return side.meets(first, first + _POWERS[below] - 1, _POWERS[below - at.left])
        return side.holds(0) or self._small_alive(side, at.behind, at.left)

    def _small_alive(self, side: Side, behind: int, zeros: int) -> bool:
        """Whether a digit other than zero leads on, with up to ``zeros`` places in which the first of them may stand."""
        for place in range(behind + 1, behind + zeros + 1):
            unit = _POWERS[_PLACES - place]
            if side.meets(unit, 10 * unit - 1, unit // _POWERS[_SIGNIFICANT - 1]):
                return True
        return False

    def _whole_alive(self, at: _Written) -> bool:
        if at.before and not at.value:  # nothing but a point may follow
            if self._wholes[at.negative].holds(0):
                return True
            return self._decimals is not None and self._decimal_alive(at._replace(behind=0, left=self._behind(at)))
        if not at.before and self._whole_alive(at._replace(before=1)):
            return True
        high = self._wholes[at.negative].high
        for more in range(0 if at.before else 1, at.left + 1):
            first, last = at.value * _POWERS[more], (at.value + 1) * _POWERS[more] - 1
            if not at.before:
                first, last = _POWERS[more - 1], _POWERS[more] - 1
            if self._meets(at.negative, first, last, at.before + more):
                return True
            if high is not None and first > high:
                return False
        return False

    def _meets(self, negative: bool, first: int, last: int, before: int) -> bool:
        """Whether a number that begins with one from ``first`` to ``last``, of ``before`` digits, and has no exponent, may be."""
        if self._wholes[negative].meets(first, last):
            return True
        if self._decimals is None:
            return False
        unit = _POWERS[self._places]
        grain = 1 if self._stepped else _POWERS[_PLACES - max(1, _SIGNIFICANT - before)]
        return self._decimals[negative].meets(first * unit, (last + 1) * unit - 1, grain)

    def _scaled_alive(self, at: _Written) -> bool:
        """Whether it can be ended with an exponent, perhaps after more digits."""
        if not self._scaled:
            return False
        side = self._scaled[at.negative]
        more = at.left if at.behind >= 0 else max(at.left, 1, _SIGNIFICANT - at.before)
        if at.value:
            return _can_scale(side, at.value, more)
        more = _SIGNIFICANT if at.before else self._most[at.negative]
        return at.left > 0 and any(_can_scale(side, digit, more - 1) for digit in range(1, 10))


def _shifts(side: Side, value: int) -> tuple[int, int]:
    """The least and the greatest number of zeros behind ``value`` with which it is one of ``side``."""
    assert side.high is not None
    return bisect_left(_POWERS, -(-side.low // value)), bisect_right(_POWERS, side.high // value) - 1


def _can_scale(side: Side, value: int, more: int) -> bool:
    """Whether ``value``, perhaps with up to ``more`` further digits, and then zeros, is one of ``side``."""
    low, high = _shifts(side, value)
    if low <= high:
        return True
    # With fewer zeros it is too small, and with more too large; what it may become with more digits is in between.
    shift = bisect_left(_POWERS, (side.low + value + 1) // (value + 1))
    first, last = value * _POWERS[shift], (value + 1) * _POWERS[shift] - 1
    return side.meets(first, last, _POWERS[max(0, shift - more)])


@lru_cache(maxsize=256)
def number(bounds: Interval, integer: bool) -> Number:
    """The leaf of such numbers: a tool's schema often asks for the same again. Raises ValueError as Number."""
    return Number(bounds, integer)
