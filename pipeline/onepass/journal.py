"""Records which parts of a half-written file are done, so that a killed run can go on.

One text line for each slab that was written: offset, length, checksum. On ``--resume`` every line is proved against the file
itself before it is believed, so a journal that knows more than the disk kept (power loss) costs time, never correctness. The
first line is a fingerprint of everything that determines the bytes; another model or recipe starts anew.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Slab:
    """One line. ``note`` is whatever the run wanted to find again (the state of a running hash); it has no newline."""

    offset: int
    length: int
    checksum: int
    note: str = ""

    def __str__(self) -> str:
        return f"{self.offset} {self.length} {self.checksum:08x} {self.note}".rstrip()


class Journal:
    """Appends slabs; ``done`` are those of an earlier run that were proved."""

    def __init__(self, path: Path, fingerprint: str, part: int, *, resume: bool) -> None:
        """
        Args:
            path: where the journal lies.
            fingerprint: identifies model, recipe and program, one line.
            part: descriptor of the half-written file.
            resume: whether what is there may be kept.
        """
        self.path = path
        self.done = proved(path, fingerprint, part) if resume else []
        path.write_text("".join(f"{line}\n" for line in (fingerprint, *self.done)))
        self._file = path.open("a", buffering=1)  # a line is in the kernel's hands before the next slab is begun

    def record(self, slab: Slab) -> None:
        """Note that the slab is in the file."""
        self._file.write(f"{slab}\n")

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)


def proved(path: Path, fingerprint: str, part: int) -> list[Slab]:
    """The slabs whose bytes in the file match their checksums, up to the first that does not.

    Empty if the journal is missing or belongs to another run.
    """
    try:
        head, *lines = path.read_text(errors="replace").split("\n")
    except OSError:
        return []
    good: list[Slab] = []
    size = os.fstat(part).st_size
    for line in lines[:-1] if head == fingerprint else ():  # what follows the last newline was cut off
        try:
            offset, length, checksum, *note = line.split(" ", 3)
            slab = Slab(int(offset), int(length), int(checksum, 16), *note)
        except ValueError:
            break
        inside = 0 <= slab.offset <= slab.offset + slab.length <= size
        if not inside or zlib.crc32(os.pread(part, slab.length, slab.offset)) != slab.checksum:
            break
        good.append(slab)
    return good
