"""The processor's cores, and how many threads a model computes with on which of them.

After every operation the threads of ggml wait for the slowest one, so one little core holds all the big ones up: eight threads
halve the speed of an RK3588, and five take a Dimensity 9500s from 24 tokens a second to 0.26 (llama.cpp #7176, #21763).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.device.kernel import group_folders, number, text

_SYSTEM = "sys/devices/system/cpu"
_BIG = 0.65  # of the fastest core's speed; below lie the little cores of every chip in tests/agent/device/boards.py
_FEW = 3  # cores of which none is spared
# Cores that run in order do well under half of what the others do in a clock. Implementer and part as in /proc/cpuinfo.
_IN_ORDER = {
    *((0x41, part) for part in (0xD01, 0xD02, 0xD03, 0xD04, 0xD05, 0xD46, 0xD80)),  # Cortex-A32, A34, A53, A35, A55, A510, A520
    *((0x51, part) for part in (0x801, 0x803, 0x805)),  # Kryo Silver
}
_IN_ORDER_SPEED = 0.4


@dataclass(frozen=True, slots=True)
class Core:
    """One core that this process may use.

    Attributes:
        number: as the kernel counts it.
        speed: beside the others of this machine; the unit is whatever the kernel tells.
        thread: its place among the threads of one physical core; 0 for the first.
    """

    number: int
    speed: float
    thread: int


@dataclass(frozen=True, slots=True)
class Threads:
    """How a model is computed on this machine.

    Attributes:
        decode, prefill: threads for one token at a time, and for a prompt.
        cores: those to stay on; empty where every core is as good as another.
        why: what was found, in one line.
    """

    decode: int
    prefill: int
    cores: tuple[int, ...]
    why: str


def cores(root: Path = Path("/")) -> int:
    """Cores that this process may take, at least 1: a container or taskset may give it fewer than there are."""
    return min(len(_allowed(root)), _quota(root))


def choose_threads(
    root: Path = Path("/"), *, wanted: int | None = None, spare: bool = False, phone: bool | None = None
) -> Threads:
    """The threads to compute with: the big cores, as far as this process may have them.

    Args:
        root: where ``proc`` and ``sys`` are mounted.
        wanted: what a person asked for; it is obeyed, and kept on the big cores as long as there are enough of them.
        spare: leave a core to the other programs, a screen for one, where there are more than three.
        phone: whether other apps come first; by default whether this is Android.
    """
    found = read_cores(root)
    fastest = max(core.speed for core in found)
    big = [core for core in found if core.speed >= _BIG * fastest]
    numbers = tuple(core.number for core in big)
    mixed = len(big) < len(found)
    said = f"{len(big)} of {len(found)} cores are fast ({ranges(numbers)})" if mixed else _count(len(found), "core")
    if wanted is not None:
        pinned = numbers if mixed and wanted <= len(big) else ()
        return Threads(wanted, wanted, pinned, f"{_count(wanted, 'thread')} as asked; {said}")
    # Memory is what limits the writing of tokens: a second thread of one physical core adds nothing there.
    decode, prefill = max(1, sum(core.thread == 0 for core in big)), len(big)
    if decode < prefill:
        said += f", {decode} of them physical"
    if mixed and decode >= 4 and (is_android() if phone is None else phone):
        decode -= 1  # Android's own threads interrupt one, and all wait for it (the same report)
        said += ", one left to other apps while tokens are written"
    elif spare and not mixed and decode > _FEW:
        decode, prefill = decode - 1, prefill - 1
        said += ", one left to other programs"
    quota = _quota(root)
    if quota < prefill:
        said += f", and a limit on this process of {_count(quota, 'core')}"
    return Threads(min(decode, quota), min(prefill, quota), numbers if mixed else (), said)


def read_cores(root: Path = Path("/")) -> list[Core]:
    """The cores that this process may use and that are on, at least one.

    Their speed is the kernel's cpu_capacity where each has one (its sysfs-devices-system-cpu document), and else the highest
    frequency, weighed with the kind of core that /proc/cpuinfo names. Android lists no folder here, but lets these files be read.
    """
    numbers = [n for n in _allowed(root) if number(root / _SYSTEM / f"cpu{n}/online") != 0] or [0]
    speeds = _told(root, numbers, "cpu_capacity")
    if not speeds:
        kinds = _kinds(root)
        clocks = _told(root, numbers, "cpufreq/cpuinfo_max_freq") or [1.0] * len(numbers)
        weights = [_IN_ORDER_SPEED if kinds.get(n) in _IN_ORDER else 1.0 for n in numbers]
        speeds = [clock * weight for clock, weight in zip(clocks, weights, strict=True)]
    return [Core(n, speed, _thread(root, n, numbers)) for n, speed in zip(numbers, speeds, strict=True)]


def ranges(numbers: Sequence[int]) -> str:
    """Numbers in order as the kernel writes a list of cores: "0-3,6"."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def _told(root: Path, numbers: Sequence[int], name: str) -> list[float]:
    """What a file says of each core; empty unless it says something of all."""
    told = [float(max(0, number(root / _SYSTEM / f"cpu{n}" / name) or 0)) for n in numbers]
    return told if all(told) else []


def _allowed(root: Path) -> list[int]:
    """The numbers of the cores in this process's mask; under another root, those that its /proc/self/status lists."""
    if root != Path("/"):
        found = re.search(r"^Cpus_allowed_list:\s*(\S+)", text(root / "proc/self/status"), re.MULTILINE)
        return sorted(_listed(found[1])) if found else [0]
    try:
        return sorted(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return list(range(os.cpu_count() or 1))


def _quota(root: Path) -> int:
    """Cores' worth of time that the groups of this process grant it, at least 1 (cgroup v2 cpu.max, v1 cpu.cfs_quota_us)."""
    least = float(1 << 20)
    for folder in group_folders(root, "cpu"):
        words = text(folder / "cpu.max").split() or [text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal() and int(words[1]):  # "max" and -1 are no limits
            least = min(least, int(words[0]) / int(words[1]))
    return max(1, int(least))


def _kinds(root: Path) -> dict[int, tuple[int, int]]:
    """Implementer and part of each core, by its number."""
    kinds: dict[int, tuple[int, int]] = {}
    for block in re.split(r"\n(?=processor\s*:)", text(root / "proc/cpuinfo")):
        said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}
        try:
            kinds[int(said["processor"])] = int(said["CPU implementer"], 16), int(said["CPU part"], 16)
        except (KeyError, ValueError):
            continue
    return kinds


def _thread(root: Path, number: int, allowed: Iterable[int]) -> int:
    """Which thread of its physical core this is, among those that may be used."""
    siblings = _listed(text(root / _SYSTEM / f"cpu{number}/topology/thread_siblings_list"))
    return sum(n < number for n in siblings & set(allowed))


def _listed(text: str) -> set[int]:
    """The numbers of a list like "0-3,6"; empty where it is none."""
    numbers: set[int] = set()
    for first, last in re.findall(r"(\d{1,4})(?:-(\d{1,4}))?", text):
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def is_android() -> bool:
    """Whether this is Android: Termux, or a Linux inside it."""
    return sys.platform == "android" or "ANDROID_ROOT" in os.environ


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
