"""The device is watched without anybody waiting for it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agent.device.machine import Battery, Load
from tui.status.monitor import DeviceState, Monitor, device_sensors

SOON = 10.0  # seconds after which a test gives up


class Told:
    """Collects what a monitor tells."""

    def __init__(self) -> None:
        self.states: queue.Queue[DeviceState] = queue.Queue()

    def next(self) -> DeviceState:
        return self.states.get(timeout=SOON)


@contextmanager
def watched(sensors: dict[str, Callable[[], Any]], every: float = 0.01) -> Iterator[tuple[Monitor, Told]]:
    told = Told()
    monitor = Monitor(told.states.put, every=every, sensors=lambda: sensors)
    monitor.start()
    try:
        yield monitor, told
    finally:
        monitor.stop()


def monitors() -> set[threading.Thread]:
    """The threads of monitors that there are, those that other tests have just stopped among them."""
    return {thread for thread in threading.enumerate() if thread.name == "monitor"}


def test_what_a_device_does_not_have_is_none() -> None:
    with watched({"load": lambda: 1.5, "temperature": lambda: None, "battery": lambda: None}) as (_, told):
        assert told.next() == DeviceState(load=1.5)


def test_a_change_is_told_and_nothing_else() -> None:
    degrees = iter([50.0, 50.0, 50.0, 61.0])
    with watched({"temperature": lambda: next(degrees, 61.0)}) as (_, told):
        assert told.next().temperature == 50.0
        assert told.next().temperature == 61.0
        assert told.states.empty()


def test_a_slow_battery_holds_up_nothing() -> None:
    answered = threading.Event()

    def battery() -> Battery:
        answered.wait(SOON)
        return Battery(64, "Discharging")

    with watched({"battery": battery, "load": lambda: 2.0}) as (_, told):
        assert told.next() == DeviceState(load=2.0)
        answered.set()
        assert told.next() == DeviceState(load=2.0, battery=Battery(64, "Discharging"))


def test_a_slow_sensor_is_asked_seldom() -> None:
    asked, rounds = [], threading.Semaphore(0)

    def slow() -> Battery:
        asked.append(True)
        time.sleep(0.02)  # so it rests four seconds
        return Battery(50, "Full")

    def quick() -> float:
        rounds.release()
        return 1.0

    with watched({"battery": slow, "load": quick}, every=0.001):
        for _ in range(20):
            assert rounds.acquire(timeout=SOON)
    assert len(asked) == 1


def test_a_broken_sensor_says_nothing_and_the_others_go_on() -> None:
    def broken() -> float:
        raise RuntimeError("no such bus")

    with watched({"temperature": broken, "load": lambda: 0.5}) as (_, told):
        assert told.next() == DeviceState(load=0.5)


def test_stop_returns_at_once_and_a_late_answer_is_thrown_away() -> None:
    asked, answer, read = threading.Event(), threading.Event(), threading.Event()

    def battery() -> Battery:
        asked.set()
        answer.wait(SOON)
        read.set()
        return Battery(64, "Full")

    others = monitors()
    with watched({"battery": battery}) as (monitor, told):
        assert asked.wait(SOON)
        (thread,) = monitors() - others
        began = time.monotonic()
        monitor.stop()
        assert time.monotonic() - began < 0.1
        answer.set()
        thread.join(SOON)
        assert read.is_set()
        assert told.states.empty()


def test_it_wakes_up_to_stop_and_can_start_again() -> None:
    others = monitors()
    with watched({"load": lambda: 1.0}, every=3600) as (monitor, told):
        told.next()
        (thread,) = monitors() - others
        monitor.start()  # it runs already
        assert monitors() - others == {thread}
        monitor.stop()
        thread.join(SOON)
        assert not thread.is_alive()
        monitor.start()
        assert told.next() == DeviceState(load=1.0)


def test_the_sensors_of_this_machine_are_those_of_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.device.machine.available_memory", lambda: 1 << 62)  # nothing is known
    monkeypatch.setattr("agent.device.machine.load", lambda: Load(3.2, 2.0, 1.0))
    monkeypatch.setattr("agent.device.machine.temperature", lambda: 48.5)
    monkeypatch.setattr("agent.device.machine.throttling", lambda: ("under-voltage",))
    monkeypatch.setattr("agent.device.machine.battery", lambda: None)
    told = Told()
    monitor = Monitor(told.states.put)
    monitor.start()
    assert told.next() == DeviceState(load=3.2, temperature=48.5, throttled=("under-voltage",))
    monitor.stop()
    monkeypatch.setattr("agent.device.machine.load", lambda: None)
    assert device_sensors()["load"]() is None


def test_watching_costs_nothing_to_speak_of() -> None:
    sensors = device_sensors()
    began = time.thread_time()
    for _ in range(10):
        for read in sensors.values():
            read()
    assert (time.thread_time() - began) / 10 < 0.05  # seconds of CPU each ten seconds: half a percent at the very most


@pytest.mark.parametrize(
    ("status", "charging"),
    [("Charging", True), ("Full", True), ("Discharging", False), ("Not charging", False), ("", None)],
)
def test_whether_it_charges(status: str, charging: bool | None) -> None:
    assert DeviceState(battery=Battery(50, status)).charging is charging


def test_without_a_battery_nothing_charges() -> None:
    assert DeviceState().charging is None
