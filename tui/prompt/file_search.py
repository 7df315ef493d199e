"""The files below one folder that ``@`` can name: looked through now and then, and found by a few letters of their path."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import nlargest
from itertools import chain, islice
from pathlib import Path
from time import monotonic

MOST_ENTRIES = 20_000
_FRESH = 10.0  # seconds after which the files are looked through again
_MANY = 2_000
_IGNORED = frozenset({"node_modules", "__pycache__"})  # and what is hidden
_LOOKED_AT = 300  # of the matches, this many are scored letter by letter
_WORD_START = re.compile(r"(?<![^\W_])[^\W_]")


@dataclass(frozen=True, slots=True)
class Paths:
    """What is below a folder: files and, with a slash at the end, folders; near ones first.

    Attributes:
        names: relative paths as they are written.
        lower: the same in lower case.
        bases: the last part of each, in lower case.
    """

    names: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()


def scan(root: Path, most: int = MOST_ENTRIES) -> Paths:
    """Look through a folder, made for a thread: no folder that is hidden or a link is entered. Never raises."""
    names: list[str] = []
    for name in _walk(root):
        names.append(name)
        if len(names) == most:
            break
    lower = tuple(name.lower() for name in names)
    return Paths(tuple(names), lower, tuple(name.rstrip("/").rpartition("/")[2] for name in lower))


def _walk(root: Path) -> Iterator[str]:
    # Breadth first, so that what is near is there when the number of entries ends the search.
    pending = deque([""])
    while pending:
        folder = pending.popleft()
        try:
            with os.scandir(root / folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if (kind := _kind(entry, root)) is None:
                continue
            yield folder + entry.name + kind
            if kind:
                pending.append(folder + entry.name + kind)


def _kind(entry: os.DirEntry[str], root: Path) -> str | None:
    """ "/" for a folder, "" for a file, None for what is left out: pipes, links out of the root, names that nobody can type."""
    try:
        if not entry.name.isprintable() or '"' in entry.name:
            return None
        if entry.is_dir(follow_symlinks=False):
            return None if entry.name[0] == "." or entry.name in _IGNORED else "/"
        if entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(os.path.realpath(root)):
            return None
        return "" if entry.is_file() else None
    except OSError:
        return None


@dataclass(slots=True)
class Finder:
    """Answers one query after the other; what a longer query can still match is kept from the one before."""

    paths: Paths
    _query: str = ""
    _pool: list[int] | None = None

    def find(self, query: str, limit: int) -> list[str]:
        """The best ``limit`` paths that have the letters of ``query`` in this order, the best first."""
        query = query.lower()
        if not query:
            self._query, self._pool = "", None
            return [name for name, low in zip(self.paths.names, self.paths.lower, strict=True) if not low.startswith(".")][:limit]
        pool = self._matching(query)
        if query.endswith("/"):
            pool = [i for i in pool if self.paths.lower[i] != query]  # it is written already: its contents are wanted
        if len(pool) > _LOOKED_AT:
            pool = self._likely(query, pool)
        best = nlargest(limit, pool, key=lambda i: (self._score(query, i), -len(self.paths.lower[i]), -i))
        return [self.paths.names[i] for i in best]

    def _matching(self, query: str) -> list[int]:
        # "[^a]*a[^b]*b" cannot backtrack: the cost is linear in the length of the path.
        matches = re.compile("".join(f"[^{re.escape(c)}]*{re.escape(c)}" for c in query)).match
        lower = self.paths.lower
        if self._pool is not None and query.startswith(self._query):
            self._pool = [i for i in self._pool if query in lower[i] or matches(lower[i])]
        elif len(query) == 1:
            self._pool = [i for i, path in enumerate(lower) if query in path]
        else:
            self._pool = [i for i, found in enumerate(map(matches, lower)) if found]
        self._query = query
        return self._pool

    def _likely(self, query: str, pool: list[int]) -> list[int]:
        """Too many to look at closely: names that begin with it, then that have it, then the near ones."""
        bases, lower = self.paths.bases, self.paths.lower
        begin = islice((i for i in pool if bases[i].startswith(query)), _LOOKED_AT)
        inside = islice((i for i in pool if query in lower[i]), _LOOKED_AT)
        return list(dict.fromkeys(chain(begin, inside, pool[:_LOOKED_AT])))[:_LOOKED_AT]

    def _score(self, query: str, i: int) -> float:
        path, base = self.paths.lower[i], self.paths.bases[i]
        if base == query or path == query or path.rstrip("/") == query:
            return 1000.0
        score = max(_closeness(query, base) * 2, _closeness(query, path))
        return score - path.count("/") * 0.5


class FileIndex:
    """What is known of the files below a folder. ``scan`` is called in a thread; everything else belongs to the screen's.

    Attributes:
        scanning: whether somebody looks through the files just now.
        scans: how often that was done.
        finder: finds among what is known.
    """

    def __init__(self, root: Path) -> None:
        self.scanning, self.scans = False, 0
        self._root, self._ended = root, 0.0
        self.finder = Finder(Paths())

    @property
    def has_many(self) -> bool:
        """Whether a search takes so long that it should wait for a pause in the typing."""
        return len(self.finder.paths.names) > _MANY

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
        self.finder = Finder(paths)


def _closeness(query: str, text: str) -> float:
    """A point for each letter, two more at the start of a word, two more beside the one before; 0 if it does not match."""
    whole = text.find(query)
    if whole >= 0:
        at_word = whole == 0 or not text[whole - 1].isalnum()
        return len(query) * 3.0 + (4.0 if whole == 0 else 2.0 if at_word else 0.0)
    starts = [found.start() for found in _WORD_START.finditer(text)]
    score, at = 0.0, -1
    for number, letter in enumerate(query, 1):
        place = text.find(letter, at + 1)
        if place < 0:
            return 0.0
        # The start of a word is worth a look ahead: "tp" means test_prompt rather than a t and a p somewhere.
        if place != at + 1 and place not in starts:
            ahead = next((j for j in starts if j > place and text[j] == letter), None)
            place = ahead if ahead is not None and _follow(query[number:], text, ahead) else place
        score += 1.0 + (2.0 if place in starts else 0.0) + (2.0 if at >= 0 and place == at + 1 else 0.0)
        at = place
    return score


def _follow(letters: str, text: str, at: int) -> bool:
    """Whether the letters come after ``at``, in their order."""
    rest = iter(text[at + 1 :])
    return all(letter in rest for letter in letters)
