"""Where numba keeps what it compiled: programs that it loads again, so that no process writes there that computes with a GGUF."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from platformdirs import user_cache_path


def compiled_folder() -> Path:
    """The place in the user's cache, or the one that numba's own variable names."""
    return Path(os.environ.get("NUMBA_CACHE_DIR") or user_cache_path("sprig", appauthor=False) / "numba")


@contextlib.contextmanager
def copy_of_compiled() -> Iterator[Path]:
    """A copy for a child that is confined, which may write what it likes there; it is gone afterwards.

    numba asks for a place that it can write, and compiles anew what is not in it.
    """
    with tempfile.TemporaryDirectory(prefix="sprig-") as folder:
        for own in compiled_folder().glob("rounding_*"):
            with contextlib.suppress(OSError):  # another run changes it: what is missing is compiled
                shutil.copytree(own, Path(folder, own.name))
        yield Path(folder)
