"""Where a line of text is broken so that it fits: at spaces, beside wide characters, and inside words that are too long."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import cell_len, get_character_cell_size, split_graphemes

# What East Asian typography does not leave at the start of a line.
_NOT_FIRST = frozenset("、。，．：；？！）］｝」』】〉》〕ー々…")
_WORD = re.compile("[^ ]+")


def wrap(text: str, width: int) -> list[tuple[int, int]]:
    """The rows of one line as ranges of ``text``, at least one; the spaces between two rows are in neither.

    Args:
        text: no newline in it.
        width: cells, at least 2 so that a wide character fits.
    """
    if len(text) * 2 <= width:
        return [(0, len(text))]
    if text.isascii() or _cells_each(text) == 1:
        return _wrap_narrow(text, width) if len(text) > width else [(0, len(text))]
    if cell_len(text) <= width:
        return [(0, len(text))]
    return _wrap_wide(text, width)


def fold(text: str, width: int) -> list[tuple[int, int]]:
    """Rows of exactly ``width`` cells, as code is broken: nothing is left out."""
    if each := 1 if text.isascii() else _cells_each(text):
        step = width // each
        return [(i, min(i + step, len(text))) for i in range(0, max(len(text), 1), step)]
    rows: list[tuple[int, int]] = []
    start = used = 0
    for at, _end, cells in split_graphemes(text)[0]:
        if used + cells > width:
            rows.append((start, at))
            start, used = at, 0
        used += cells
    return [*rows, (start, len(text))]


def _cells_each(text: str) -> int:
    """How many cells each character takes, where all take the same; else 0."""
    sizes = {get_character_cell_size(c) for c in set(text)}
    return sizes.pop() if len(sizes) == 1 else 0


def _wrap_narrow(text: str, width: int) -> list[tuple[int, int]]:
    rows: list[tuple[int, int]] = []
    start, size = 0, len(text)
    while size - start > width:
        space = text.rfind(" ", start, start + width + 1)
        end = start + len(text[start:space].rstrip(" ")) if space > start else start
        if end == start:  # one long word, or spaces only
            end = start + width
        rows.append((start, end))
        start = end
        while start < size and text[start] == " ":
            start += 1
    if start < size or not rows:
        rows.append((start, size))
    return rows


def _wrap_wide(text: str, width: int) -> list[tuple[int, int]]:
    rows: list[tuple[int, int]] = []
    start = end = used = 0
    for at, stop, cells in _atoms(text):
        if end and used + (at - end) + cells > width:
            rows.append((start, end))
            start, used = at, 0
        elif end:
            used += at - end
        else:
            start = at
        end = stop
        if cells > width:
            *full, last = fold(text[at:stop], width)
            rows += [(at + a, at + b) for a, b in full]
            start, cells = at + last[0], cell_len(text[at + last[0] : stop])
        used += cells
    return [*rows, (start, end)] if end else [(0, len(text))]


def _atoms(text: str) -> Iterator[tuple[int, int, int]]:
    """What is not broken: words, and each wide character with the punctuation that must follow it. Start, end, cells."""
    for word in _WORD.finditer(text):
        part = word[0]
        base = word.start()
        cells = cell_len(part)
        if cells <= len(part) and part.isascii():
            yield base, word.end(), cells
            continue
        start = used = 0
        wide = False
        for at, _end, size in split_graphemes(part)[0]:
            if at and (size > 1 or wide) and part[at] not in _NOT_FIRST:
                yield base + start, base + at, used
                start, used = at, 0
            used += size
            wide = size > 1
        yield base + start, word.end(), used
