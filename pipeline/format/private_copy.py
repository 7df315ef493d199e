"""A copy of a file beside its result, to be changed before it gets a name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.files import exclusive, reserve, write_error


@contextmanager
def private_copy(source: Path, part: Path) -> Iterator[int]:
    """A copy at ``part``, locked and open for writing; it is gone afterwards unless somebody gave it a name.

    Raises:
        OutputError: there is no room, or another run holds it.
    """
    with exclusive(part) as fd:
        try:
            try:
                os.ftruncate(fd, 0)  # a killed run may have left a longer one
                with source.open("rb") as file, os.fdopen(os.dup(fd), "wb") as copy:
                    reserve(fd, source.stat().st_size, part)
                    shutil.copyfileobj(file, copy, 1 << 20)
            except OSError as e:
                raise write_error(e, part) from None
            yield fd
        finally:
            part.unlink(missing_ok=True)
