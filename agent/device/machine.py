"""What this machine can do and how it is: memory, load, temperature, throttling, battery.

What a sensor does not say, or says in nonsense, is None and never 0.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from agent.device.kernel import group_folders, number, text


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that this process can still take without swapping: what the kernel calls available, or a cgroup's rest.

    Sources: proc(5) (MemAvailable), the kernel's cgroup-v2 and memory cgroup v1 documents.

    Args:
        root: where ``proc`` and ``sys`` are mounted.
    """
    return max(0, min(_kernel_available(root), *_cgroup_rooms(root)))


def total_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this machine has, or that a cgroup allows its processes."""
    found = re.search(r"^MemTotal:\s*(\d+)", text(root / "proc/meminfo"), re.MULTILINE)
    limits = [number(f / name) for f in group_folders(root, "memory") for name in ("memory.max", "memory.limit_in_bytes")]
    return min([int(found[1]) * 1024 if found else _kernel_available(root), *(limit for limit in limits if limit)])


def _kernel_available(root: Path) -> int:
    found = re.search(r"^MemAvailable:\s*(\d+)", text(root / "proc/meminfo"), re.MULTILINE)
    if found:
        return int(found[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 1 << 62


def _cgroup_rooms(root: Path) -> list[int]:
    """What each enclosing memory cgroup still allows. Always one element at least, so that min() has something."""
    rooms = [1 << 62]
    for folder in group_folders(root, "memory"):
        rooms.append(_room(folder, "memory.max", "memory.current", "inactive_file"))
        rooms.append(_room(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
    return rooms


def _room(folder: Path, limit: str, usage: str, cache: str) -> int:
    most, used = number(folder / limit), number(folder / usage)
    if most is None or used is None:
        return 1 << 62  # "max", no such group, or one of the other version
    reclaimable = re.search(rf"^{cache} (\d+)$", text(folder / "memory.stat"), re.MULTILINE)
    return most - used + (int(reclaimable[1]) if reclaimable else 0)


@dataclass(frozen=True, slots=True)
class Load:
    """How many processes wanted to run, on average over 1, 5 and 15 minutes."""

    one: float
    five: float
    fifteen: float


@dataclass(frozen=True, slots=True)
class Battery:
    """A battery: its charge in percent, and what it does, as in the kernel's words ("Charging", "Discharging", "Full")."""

    percent: int
    status: str

    def __str__(self) -> str:
        return f"{self.percent} %, {self.status.lower()}" if self.status else f"{self.percent} %"


def load(root: Path = Path("/")) -> Load | None:
    """The load averages (proc(5)); None where the system does not tell, as on Android."""
    try:
        one, five, fifteen = map(float, text(root / "proc/loadavg").split()[:3])
    except ValueError:
        return None
    return Load(one, five, fifteen)


# What sits in or beside the processor, by the names that kernels give the zones.
_PROCESSOR_ZONES = ("cpu", "soc", "x86_pkg", "package", "ap", "little", "big", "core", "tsens")


def temperature(root: Path = Path("/")) -> float | None:
    """The hottest sensor of the processor, or else of anything, in degrees Celsius; None if no sensor says anything.

    Source: the kernel's sysfs-class-thermal document (milli-degrees). Values that no device has are broken sensors.
    """
    found: list[tuple[bool, float]] = []
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        kind, degrees = text(zone / "type").lower(), (number(zone / "temp") or 0) / 1000
        if kind and 1 <= degrees < 130:
            found.append((kind.startswith(_PROCESSOR_ZONES) or "cpu" in kind, degrees))
    return max(found)[1] if found else None


# The firmware's bits (Raspberry Pi documentation, vcgencmd get_throttled); the driver shows them as a file.
_THROTTLED = ((1, "under-voltage"), (2, "frequency capped"), (4, "throttled"), (8, "soft temperature limit"))


def throttling(root: Path = Path("/")) -> tuple[str, ...] | None:
    """Why the processor is slower than it could be, now; () when nothing slows it; None where that cannot be known.

    A Raspberry Pi's firmware tells. Elsewhere a cooling device of the processor that is at work is the sign of it
    (the kernel's sysfs-class-thermal document).
    """
    for place in sorted((root / "sys/devices/platform").glob("soc*/soc*firmware/get_throttled")):
        bits = number(place, 16)
        if bits is not None:
            return tuple(name for bit, name in _THROTTLED if bits & bit)
    devices = (root / "sys/class/thermal").glob("cooling_device*")
    coolers = [d for d in devices if "cpu" in (kind := text(d / "type").lower()) or kind == "processor"]
    states = [state for d in coolers if (state := number(d / "cur_state")) is not None]
    return (("slowed by heat",) if max(states) > 0 else ()) if states else None


def battery(root: Path = Path("/")) -> Battery | None:
    """The device's battery (the kernel's sysfs-class-power document); None if it has none or the battery does not say.

    Android hides these files from apps; there ``termux-battery-status`` tells, where Termux:API is installed.
    """
    for supply in sorted((root / "sys/class/power_supply").glob("*")):
        if text(supply / "type") != "Battery" or text(supply / "scope") == "Device":  # of a mouse or a keyboard
            continue
        percent = number(supply / "capacity")
        if percent is not None and 0 <= percent <= 100:
            return Battery(percent, text(supply / "status").replace("Unknown", ""))
    return _termux_battery() if root == Path("/") else None


def _termux_battery() -> Battery | None:
    program = shutil.which("termux-battery-status")
    if program is None:
        return None
    try:
        # Without its app the program never answers.
        answer = subprocess.run([program], stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=True).stdout
        told = json.loads(answer)
        return Battery(max(0, min(100, int(told["percentage"]))), str(told.get("status", "")).replace("_", " ").capitalize())
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None
