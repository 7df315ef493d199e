"""Where a line of text is broken so that it fits: at spaces, beside wide characters, and inside words that are too long."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from rich.cells import cell_len, get_character_cell_size

# What East Asian typography does not leave at the start of a line.
_NOT_FIRST = frozenset("、。，．：；？！）］｝」』】〉》〕ー々…")
_EMOJI_STYLE = "\ufe0f"  # makes some characters before it wide
_JOINER = "\u200d"
_SKIN_TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))


class _Sizes(dict[str, int]):
    """character -> its cells; filled as characters are met."""

    def __missing__(self, character: str) -> int:
        size = self[character] = get_character_cell_size(character)
        return size


_SIZES = _Sizes()


def wrap(text: str, width: int) -> list[tuple[int, int]]:
    """The rows of one line as ranges of ``text``, at least one; the spaces between two rows are in neither.

    Args:
        text: no newline in it.
        width: cells, at least 2 so that a wide character fits.
    """
    if len(text) * 2 <= width:
        return [(0, len(text))]
    if text.isascii():
        return _wrap_narrow(text, width)
    sizes = _sizes(text)
    ends = [0, *accumulate(sizes)]
    if ends[-1] <= width:
        return [(0, len(text))]
    rows: list[tuple[int, int]] = []
    start = 0
    while ends[-1] - ends[start] > width:
        most = _most(text, ends, start, width)
        end = next((i for i in range(most, start, -1) if _may_break(text, sizes, i)), most)
        stop = end
        while stop > start + 1 and text[stop - 1] == " ":
            stop -= 1
        rows.append((start, stop))
        start = end
        while start < len(text) and text[start] == " ":
            start += 1
    if start < len(text):
        rows.append((start, len(text)))
    return rows


def fold(text: str, width: int) -> list[tuple[int, int]]:
    """Rows as full as they can be, as code is broken: nothing is left out."""
    if text.isascii():
        return [(i, min(i + width, len(text))) for i in range(0, max(len(text), 1), width)]
    ends = [0, *accumulate(_sizes(text))]
    rows: list[tuple[int, int]] = []
    start = 0
    while ends[-1] - ends[start] > width:
        end = _most(text, ends, start, width)
        rows.append((start, end))
        start = end
    return [*rows, (start, len(text))]


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


def _sizes(text: str) -> list[int]:
    """Cells of each character, such that their sum is ``cell_len`` of the text."""
    sizes = list(map(_SIZES.__getitem__, text))
    at = text.find(_JOINER)
    while at >= 0:
        sizes[at : at + 2] = [0] * len(sizes[at : at + 2])  # Rich counts what is joined as one sign
        at = text.find(_JOINER, at + 2)
    at = text.find(_EMOJI_STYLE)
    while at >= 0:
        base = next((i for i in range(at - 1, max(at - 9, -1), -1) if sizes[i]), -1)
        if base >= 0 and _EMOJI_STYLE not in text[base:at]:
            sizes[at] = cell_len(text[base] + _EMOJI_STYLE) - sizes[base]
        at = text.find(_EMOJI_STYLE, at + 1)
    return sizes


def _most(text: str, ends: list[int], start: int, width: int) -> int:
    """The end of the longest row that fits, at least one character."""
    end = bisect_right(ends, ends[start] + width) - 1
    while end > start + 1 and end < len(text) and text[end] == _EMOJI_STYLE:
        end -= 1
    return max(end, start + 1)


def _may_break(text: str, sizes: list[int], at: int) -> bool:
    """A row may end before the character at ``at``."""
    if text[at] == " " or text[at - 1] == " ":
        return True
    wide = sizes[at] > 1 or sizes[at - 1] > 1
    return wide and sizes[at] > 0 and text[at] not in _NOT_FIRST and text[at] not in _SKIN_TONES and text[at] != _EMOJI_STYLE
