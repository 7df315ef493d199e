"""What Linux tells in files, under a root of one's own where it is another machine's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


def text(path: Path) -> str:
    """What a file of the kernel's says, stripped; empty where it says nothing (a sensor that sleeps fails)."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""


def number(path: Path, base: int = 10) -> int | None:
    """The whole number in a file of the kernel's; None where there is none."""
    try:
        return int(text(path), base)
    except ValueError:
        return None


def group_folders(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the control groups that this process is in, from the innermost to the top, of version 2 and of version 1.

    Args:
        root: where ``proc`` and ``sys`` are mounted.
        controller: "memory" or "cpu".
    """
    for line in text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            base = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            base = root / "sys/fs/cgroup" / controller
        else:
            continue
        place = base / path.lstrip("/")
        # Inside a container the path is the host's, and only the top of the tree is mounted.
        for folder in (place, *place.parents) if place.is_relative_to(base) else (base,):
            yield folder
            if folder == base:
                break


def model_name(root: Path) -> str:
    """What the device tree calls the board, or else /proc/cpuinfo the processor; empty where neither does."""
    board = text(root / "proc/device-tree/model").rstrip("\0")
    found = re.search(r"^(?:model name|Hardware)\s*:\s*(.+)$", text(root / "proc/cpuinfo"), re.MULTILINE)
    return board or (found[1].strip() if found else "")
