"""How the device is, now and then: its sensors, read in a thread of their own, so that a slow one holds up nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.device.machine import Battery

USUAL = 10.0  # seconds between two readings
REDUCED = 30.0  # with reduced motion, or on a slow line

# The part of the time that one sensor may take. One that takes 0.3 s, as Termux's battery does, then rests for a minute, and
# one that runs into its time limit of 5 s for a quarter of an hour.
_SHARE = 0.005
_SLOW = "battery"  # is asked last, when the others have been told already


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What the sensors say; None for what this device does not tell, or not just now.

    Attributes:
        available: bytes of memory that can still be taken.
        load: processes that wanted to run, on average over a minute.
        temperature: of the processor, in degrees Celsius.
        throttled: why the processor is slower than it could be; () when nothing slows it.
        battery: charge, and what it does.
    """

    available: int | None = None
    load: float | None = None
    temperature: float | None = None
    throttled: tuple[str, ...] | None = None
    battery: Battery | None = None

    @property
    def charging(self) -> bool | None:
        """Whether the battery is at a charger."""
        if self.battery is None or not self.battery.status:
            return None
        return self.battery.status.lower() in ("charging", "full")


Sensors = Mapping[str, Callable[[], Any]]  # field of DeviceState -> what reads it


class Monitor:
    """Reads the sensors from ``start`` to ``stop``, and tells what has changed."""

    def __init__(
        self,
        tell: Callable[[DeviceState], object],
        *,
        every: float = USUAL,
        sensors: Callable[[], Sensors] | None = None,
    ) -> None:
        """
        Args:
            tell: gets each new state, in the monitor's thread (``post_message`` may be called there).
            every: seconds between two readings; may be changed at any time.
            sensors: gives what is read; called in the thread. By default those of ``agent.device.machine``.
        """
        self.every = every
        self._tell = tell
        self._sensors = sensors or device_sensors
        self._stopped: threading.Event | None = None

    def start(self) -> None:
        """Read at once, and again and again. Does nothing when that happens already."""
        if self._stopped is None:
            self._stopped = threading.Event()
            threading.Thread(target=self._work, args=(self._stopped,), name="monitor", daemon=True).start()

    def stop(self) -> None:
        """Tell nothing more. Returns at once, also while a sensor is slow: what it says then is thrown away."""
        if self._stopped is not None:
            self._stopped.set()
            self._stopped = None

    def _work(self, stopped: threading.Event) -> None:
        sensors = self._sensors()
        rests = dict.fromkeys(sensors, 0.0)  # until when
        state = told = DeviceState()
        while not stopped.is_set():
            for name in sorted(sensors, key=lambda name: name == _SLOW):
                if name == _SLOW:
                    told = self._pass_on(state, told, stopped)
                began = time.monotonic()
                if began >= rests[name] and not stopped.is_set():
                    state = replace(state, **{name: _value(sensors[name])})
                    now = time.monotonic()
                    rests[name] = now + (now - began) / _SHARE
            told = self._pass_on(state, told, stopped)
            stopped.wait(self.every)

    def _pass_on(self, state: DeviceState, told: DeviceState, stopped: threading.Event) -> DeviceState:
        if state != told and not stopped.is_set():
            self._tell(state)
        return state


def device_sensors() -> Sensors:
    """Those of the machine that this runs on."""
    from agent.device import machine

    def available() -> int | None:
        room = machine.available_memory()
        return room if room < 1 << 60 else None  # more than that is its way to say that nothing is known

    def load() -> float | None:
        loads = machine.load()
        return loads.one if loads is not None else None

    return {
        "available": available,
        "load": load,
        "temperature": machine.temperature,
        "throttled": machine.throttling,
        "battery": machine.battery,
    }


def _value(sensor: Callable[[], Any]) -> Any:
    try:
        return sensor()
    except Exception:  # a sensor with a fault of its own says nothing, and the others are still read
        return None
