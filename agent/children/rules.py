"""What a confined process may reach and take: plain values, which go over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNLIMITED = -1  # of a limit: what the system sets


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """What one process and what it starts may take."""

    memory: int = 1 << 30  # bytes of address space
    cpu: int = 60  # seconds of processor time
    file_size: int = 1 << 28  # bytes of one written file
    processes: int = 64  # how many more than this user has already (the kernel does not hold root to it)
    files: int = 256  # open at once


FREE = ResourceLimits(UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a confined process may reach."""

    read: tuple[str, ...] = ()  # files and folders that may be read and executed, with all below them
    write: tuple[str, ...] = ()  # folders that may be read and written, with all below them
    network: bool = False  # whether it may open sockets
    limits: ResourceLimits = ResourceLimits()
    kept: tuple[str, ...] = ()  # what lies in the folders that may be written, and may be read only

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Rules:
        read, write, kept = (tuple(data[name]) for name in ("read", "write", "kept"))
        return cls(read, write, data["network"], ResourceLimits(**data["limits"]), kept)
