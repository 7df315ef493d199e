"""The files that ``@`` can name, and when to look through them again."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

from tui.prompt.file_search import Finder, Paths, scan

_FRESH = 10.0  # seconds after which the files are looked through again
_MANY = 2_000


class FileIndex:
    """What is known of the files below a folder. ``scan`` is called in a thread; everything else belongs to the screen's.

    Attributes:
        scanning: whether somebody looks through the files just now.
        scans: how often that was done.
    """

    def __init__(self, root: Path) -> None:
        self.scanning, self.scans = False, 0
        self._root, self._ended = root, 0.0
        self._finder = Finder(Paths())

    @property
    def has_many(self) -> bool:
        """Whether a search takes so long that it should wait for a pause in the typing."""
        return len(self._finder.paths.names) > _MANY

    def begin(self) -> bool:
        """Whether a scan is due. If so, the caller must now call ``scan`` in a thread, and ``take`` with its result."""
        if self.scanning or (self.scans and monotonic() - self._ended < _FRESH):
            return False
        self.scanning = True
        return True

    def scan(self) -> Paths:
        """Look through the folder."""
        return scan(self._root)

    def take(self, paths: Paths) -> None:
        """Know these files from now on."""
        self.scanning, self._ended = False, monotonic()
        self.scans += 1
        self._finder = Finder(paths)

    def find(self, query: str, limit: int) -> list[str]:
        """The best ``limit`` paths that have the letters of ``query`` in this order, the best first."""
        return self._finder.find(query, limit)
