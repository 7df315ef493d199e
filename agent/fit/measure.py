"""What this machine does in a second, measured in a few: how fast memory is read, and the disk that models lie on."""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agent.device.machine import available_memory

_MEMORY_BYTES = 1 << 27  # well above any cache of a board
_FILE_BYTES = 1 << 25
_SECONDS = 0.5


def memory_bandwidth(threads: int) -> float:
    """Bytes a second that so many threads read from memory together, which is what limits the writing of tokens.

    Takes half a second, and at most 128 MB or an eighth of the free memory.
    """
    import numpy as np
    import numpy.typing as npt

    size = max(1 << 20, min(_MEMORY_BYTES, available_memory() // 8) // threads // 8 * 8)
    parts = [np.zeros(size // 8, np.uint64) for _ in range(threads)]

    def read(part: npt.NDArray[np.uint64]) -> int:
        rounds, end = 0, time.monotonic() + _SECONDS
        while time.monotonic() < end:
            part.max()  # reads all of it, without Python's lock
            rounds += 1
        return rounds * part.nbytes

    for part in parts:
        part[:] = 1  # so that each page is there
    start = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(read, parts)) / (time.monotonic() - start)


def storage_speed(folder: Path) -> float | None:
    """Bytes a second that are read from the disk of ``folder``, from a file of 32 MB that is written for it; None where none
    can be.

    The file is read past the cache of the system where that lets go of it, as Linux does for a file that has been synced.
    """
    place = folder
    while not place.is_dir() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            block = os.urandom(1 << 20)
            for _ in range(_FILE_BYTES >> 20):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start = time.monotonic()
            file.seek(0)
            while file.read(1 << 20):
                pass
            return _FILE_BYTES / (time.monotonic() - start)
    except OSError:
        return None
