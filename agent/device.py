"""What this machine can do: the memory that is left and the cores that this process may use."""

from __future__ import annotations

import os
from pathlib import Path


def cores() -> int:
    """Cores that this process may run on, at least 1 (a container or taskset may give it fewer than there are)."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that this process can still take without swapping: what the kernel calls available, or a cgroup's rest.

    Sources: proc(5) (MemAvailable), the kernel's cgroup-v2 and memory cgroup v1 documents.

    Args:
        root: where ``proc`` and ``sys`` are mounted.
    """
    return max(0, min(_kernel_available(root), *_cgroup_rooms(root)))


def _kernel_available(root: Path) -> int:
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return _physical_memory()


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 1 << 62


def _cgroup_rooms(root: Path) -> list[int]:
    """What each enclosing memory cgroup still allows. Always one element at least, so that min() has something."""
    rooms = [1 << 62]
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return rooms
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            base, limit, usage, cache = root / "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit, usage = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        place = base / path.lstrip("/")
        # Inside a container the path is the host's, and only the top of the tree is mounted.
        for folder in (place, *place.parents) if place.is_relative_to(base) else (base,):
            rooms.append(_room(folder, limit, usage, cache))
            if folder == base:
                break
    return rooms


def _room(folder: Path, limit: str, usage: str, cache: str) -> int:
    try:
        most = int((folder / limit).read_text())
        used = int((folder / usage).read_text())
    except (OSError, ValueError):
        return 1 << 62  # "max", or no such group
    reclaimable = 0
    try:
        for line in (folder / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == cache:
                reclaimable = int(value)
    except (OSError, ValueError):
        pass
    return most - used + reclaimable
