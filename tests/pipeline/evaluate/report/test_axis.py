"""Axes: places stay between the ends, numbers are round and on the axis."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate.report.axis import Axis, linear_axis, log_axis, plain

LOSSES = st.lists(st.floats(0, 50) | st.floats(1e-6, 1e-2), min_size=1, max_size=12)


def test_places_follow_the_scale() -> None:
    linear, log = Axis(0, 10, 100, 200), Axis(0.01, 1, 200, 100, log=True)
    assert [linear.at(v) for v in (0, 5, 10, 11, -1)] == [100, 150, 200, 200, 100]
    assert [round(log.at(v)) for v in (0.01, 0.1, 1, 0)] == [200, 150, 100, 200]


def test_numbers_on_an_axis_are_round() -> None:
    assert Axis(70, 150, 0, 1).ticks(6) == [80, 100, 120, 140]
    assert Axis(0.0014, 0.8, 0, 1, log=True).ticks(7) == [0.003, 0.01, 0.03, 0.1, 0.3]
    assert Axis(0.036, 0.042, 0, 1, log=True).ticks(5) == [0.036, 0.038, 0.04, 0.042]
    assert Axis(1e-7, 10, 0, 1, log=True).ticks(5) == [1e-7, 1e-5, 1e-3, 1e-1, 10]
    assert [plain(v) for v in (0.00001, 0.05, 120, 1e6, 0)] == ["0.00001", "0.05", "120", "1000000", "0"]


def test_nothing_lost_lies_on_the_low_end() -> None:
    axis = log_axis([0.0, 0.02, 0.5], 300, 20)
    assert axis.at(0.0) == 300
    assert axis.at(0.02) < 290, "apart from what was lost"


@given(LOSSES, st.integers(3, 9))
def test_all_values_and_numbers_lie_on_the_axis(losses: list[float], most: int) -> None:
    for axis in (log_axis(losses, 400, 30), linear_axis([1 + 1000 * v for v in losses], 50, 700)):
        assert axis.low < axis.high
        places = [axis.at(v) for v in (*losses, 1.0, 1001.0)]
        assert all(min(axis.start, axis.end) <= place <= max(axis.start, axis.end) for place in places)
        ticks = axis.ticks(most)
        assert ticks == sorted(set(ticks))
        assert 2 <= len(ticks) <= 2 * most + 1
        assert all(axis.low * (1 - 1e-9) - 1e-9 <= tick <= axis.high * (1 + 1e-9) for tick in ticks)


def test_values_that_are_nearly_the_same_have_numbers_that_differ() -> None:
    ticks = linear_axis([76.0, 76.000001], 0, 600).ticks(5)
    assert len({plain(tick) for tick in ticks}) == len(ticks) >= 2


@pytest.mark.parametrize("value", [0.0, 3.5, -2.0])
def test_a_single_value_has_an_axis(value: float) -> None:
    axis = linear_axis([value], 0, 100)
    assert 0 <= axis.at(value) <= 100
    assert axis.low < axis.high
