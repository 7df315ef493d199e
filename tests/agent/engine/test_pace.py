"""The number of threads that write: fewer while other programs take cores, all of them again afterwards."""

from __future__ import annotations

import pytest

from agent.engine.pace import Pace

CORES, TOKEN = 4, 0.08  # seconds a token on one core


class FakeMachine:
    """So many cores, of which other programs take some: threads beyond the free ones are waited for by all."""

    def __init__(self, busy: int = 0) -> None:
        self.busy = busy
        self.seconds = 0.0
        self.counts: list[int] = []

    def write(self, pace: Pace, tokens: int) -> float:
        """Seconds that the tokens took."""
        began = self.seconds
        for _ in range(tokens):
            starved = pace.threads > CORES - self.busy
            took = TOKEN / pace.threads * (10 if starved else 1)
            self.counts.append(pace.threads)
            self.seconds += took
            pace.took(took, took * pace.threads * (0.5 if starved else 0.98))
        return self.seconds - began


def test_alone_all_threads_write_and_nothing_is_tried() -> None:
    machine, pace = FakeMachine(), Pace(CORES)
    machine.write(pace, 2000)
    assert set(machine.counts) == {CORES}


@pytest.mark.parametrize("busy", [1, 2, 3])
def test_beside_busy_programs_threads_write_on_the_free_cores(busy: int) -> None:
    machine, pace = FakeMachine(busy), Pace(CORES)
    machine.write(pace, 200)
    assert pace.threads == CORES - busy
    machine.counts.clear()
    ideal = 4000 * TOKEN / (CORES - busy)
    assert machine.write(pace, 4000) < 1.1 * ideal  # the tries included
    assert machine.counts.count(CORES - busy) > 0.97 * 4000


def test_when_the_others_have_ended_all_threads_write_again() -> None:
    machine, pace = FakeMachine(busy=2), Pace(CORES)
    machine.write(pace, 1000)
    machine.busy = 0
    machine.write(pace, 600)
    assert pace.threads == CORES


def test_threads_that_wait_for_something_else_stay() -> None:
    """A slow disk, for one: fewer threads gain nothing."""
    pace, counts = Pace(CORES), []
    for _ in range(4000):
        counts.append(pace.threads)
        pace.took(0.1, 0.1 * pace.threads * 0.3)
    assert pace.threads == CORES
    assert counts.count(CORES) > 0.9 * len(counts)


def test_one_thread_is_never_less() -> None:
    pace = Pace(1)
    for _ in range(100):
        pace.took(1.0, 0.1)
    assert pace.threads == 1
