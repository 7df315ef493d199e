"""Cutting a text into pieces that an embedding model can tell apart: some paragraphs each, with a little of the piece before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# In UTF-8, which follows the tokens of most vocabularies better than characters do: some 250 tokens of prose, fewer than 512 of
# any script, the most that many embedding models take.
MOST = 1000
OVERLAP = 150
MAX_PIECES = 4000  # of one text; what comes behind is left out


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a text. ``first`` and ``last`` are its lines, counted from 1."""

    first: int
    last: int
    text: str


def cut(text: str) -> list[Piece]:
    """The pieces of a text, in order, each of at most MOST bytes. They end between paragraphs where one is near, else between
    lines; a longer line is cut between words. What is blank gives no piece."""
    lines = [(number, part) for number, line in enumerate(text.splitlines(), 1) for part in _parts(line)]
    sizes = [len(part.encode("utf-8", "replace")) + 1 for _, part in lines]
    pieces: list[Piece] = []
    start = 0
    while start < len(lines) and len(pieces) < MAX_PIECES:
        end = _end(lines, sizes, start)
        stretch = "\n".join(part for _, part in lines[start:end])
        if stretch.strip():
            pieces.append(Piece(lines[start][0], lines[end - 1][0], stretch))
        start = _next_start(sizes, start, end)
    return pieces


def _end(lines: Sequence[tuple[int, str]], sizes: Sequence[int], start: int) -> int:
    """Where a piece ends that begins at ``start``."""
    end, size, paragraph = start, 0, 0
    while end < len(lines) and (end == start or size + sizes[end] <= MOST):
        if not lines[end][1].strip() and size > MOST // 2:
            paragraph = end
        size += sizes[end]
        end += 1
    return paragraph if paragraph and end < len(lines) else end


def _next_start(sizes: Sequence[int], start: int, end: int) -> int:
    """Where the next piece begins: some lines before the end of this one, if what comes then has room beside them."""
    if end >= len(sizes):
        return end
    following, room = end, min(OVERLAP, MOST - sizes[end])
    while following - 1 > start and room >= sizes[following - 1]:
        following -= 1
        room -= sizes[following]
    return following


def _parts(line: str) -> Iterator[str]:
    """A line in parts that a piece can hold."""
    raw, start = line.encode("utf-8", "replace"), 0
    while len(raw) - start >= MOST:
        end = raw.rfind(b" ", start + MOST // 2, start + MOST)
        if end < 0:
            end = start + MOST - 1
            while raw[end] & 0xC0 == 0x80:  # within a character
                end -= 1
        yield raw[start:end].decode("utf-8")
        start = end
    yield raw[start:].decode("utf-8")
