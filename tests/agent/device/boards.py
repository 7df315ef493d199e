"""Boards and phones that are not here, as trees of the files in which their kernels tell about cores.

What a core is, its clock and its order come from the makers; the capacities from Linux's device trees (capacity-dmips-mhz,
weighed with the clock as drivers/base/arch_topology.c does). Where a maker's kernel is not public, there is no capacity.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

A53, A55, A72, A73, A76, A78AE = 0xD03, 0xD05, 0xD08, 0xD09, 0xD0B, 0xD42
A510, A710, A715, X3, A520, A720, X4, X925 = 0xD46, 0xD47, 0xD4D, 0xD4E, 0xD80, 0xD81, 0xD82, 0xD85


@dataclass(frozen=True)
class Cluster:
    """Cores of one kind: how many, their part number, MHz, and capacity-dmips-mhz."""

    count: int
    part: int
    mhz: int
    dmips: int | None = None


BOARDS = {
    "Raspberry Pi Zero 2 W": [Cluster(4, A53, 1000, 1024)],
    "Raspberry Pi 3": [Cluster(4, A53, 1400, 1024)],
    "Raspberry Pi 4": [Cluster(4, A72, 1800, 1024)],
    "Raspberry Pi 5": [Cluster(4, A76, 2400, 1024)],
    "RK3566": [Cluster(4, A55, 1800, 1024)],
    "RK3399": [Cluster(4, A53, 1416, 485), Cluster(2, A72, 1800, 1024)],
    "RK3588": [Cluster(4, A55, 1800, 530), Cluster(2, A76, 2400, 1024), Cluster(2, A76, 2256, 1024)],
    "Odroid N2": [Cluster(2, A53, 1896, 592), Cluster(4, A73, 1800, 1024)],
    "Jetson Orin Nano": [Cluster(6, A78AE, 1510, 1024)],
    "Snapdragon 8 Gen 2": [Cluster(3, A510, 2016), Cluster(2, A715, 2803), Cluster(2, A710, 2803), Cluster(1, X3, 3187)],
    "Snapdragon 8 Gen 3": [
        Cluster(2, A520, 2265, 1024), Cluster(3, A720, 3148, 1792), Cluster(2, A720, 2957, 1792), Cluster(1, X4, 3302, 1894),
    ],
    "Pixel 9": [Cluster(4, A520, 1950), Cluster(3, A720, 2600), Cluster(1, X4, 3105)],
    "Dimensity 9500s": [Cluster(4, A720, 2400), Cluster(3, X4, 3300), Cluster(1, X925, 3730)],
}  # fmt: skip


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def board(root: Path, name: str, *, capacity: bool = True, frequency: bool = True) -> Path:
    """The tree of a board; without files that its kernel may hide."""
    kinds = [cluster for cluster in BOARDS[name] for _ in range(cluster.count)]
    most = max((c.dmips or 0) * c.mhz for c in kinds)
    files = {"proc/self/status": f"Name:\tpython\nCpus_allowed_list:\t0-{len(kinds) - 1}\n", "proc/cpuinfo": ""}
    for n, core in enumerate(kinds):
        files["proc/cpuinfo"] += f"processor\t: {n}\nCPU implementer\t: 0x41\nCPU part\t: {core.part:#x}\n\n"
        folder = f"sys/devices/system/cpu/cpu{n}"
        files[f"{folder}/topology/thread_siblings_list"] = f"{n}\n"
        if core.dmips and capacity:
            files[f"{folder}/cpu_capacity"] = f"{core.dmips * core.mhz * 1024 // most}\n"
        if frequency:
            files[f"{folder}/cpufreq/cpuinfo_max_freq"] = f"{core.mhz}000\n"
    return write(root, files)
