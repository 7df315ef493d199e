"""What the screen shows of a leaf: rows of styled pieces, and the text behind them that a selection copies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tui.markdown.inline import InlineRun

ClickAction = tuple[str, str]  # what a click does: ("link", address) or ("copy", ""), which stands for the leaf's code


class RowPiece(NamedTuple):
    """Part of a row. ``own``: it is part of the text that can be selected, and not an ornament."""

    text: str
    style: str = ""
    action: ClickAction | None = None
    own: bool = True


class Row(NamedTuple):
    """One row of the screen. It shows part of the leaf's text line ``line``, from character ``start`` on."""

    pieces: tuple[RowPiece, ...]
    line: int
    start: int = 0


class Rows:
    """A leaf at one width, as rows that are all there. ``lines`` are those of its text."""

    def __init__(self, rows: list[Row], text: list[str]) -> None:
        self._rows, self._text = rows, text

    @property
    def height(self) -> int:
        return len(self._rows)

    @property
    def lines(self) -> int:
        return len(self._text)

    def row(self, y: int) -> Row:
        return self._rows[y]

    def text(self) -> Sequence[str]:
        return self._text

    def same(self, before: Rows) -> int:
        """How many rows at the top are those that were there before."""
        pairs = enumerate(zip(self._rows, before._rows, strict=False))
        return next((y for y, (new, old) in pairs if new != old), min(self.height, before.height))


def pieces_of(runs: Iterable[InlineRun]) -> list[RowPiece]:
    return [RowPiece(run.text, run.style, ("link", run.href) if run.href else None) for run in runs]


def cut(pieces: Sequence[RowPiece], start: int, end: int) -> list[RowPiece]:
    """The characters from ``start`` to ``end`` of pieces that follow each other."""
    found: list[RowPiece] = []
    at = 0
    for piece in pieces:
        stop = at + len(piece.text)
        if stop > start and at < end:
            found.append(piece._replace(text=piece.text[max(start - at, 0) : end - at]))
        at = stop
        if at >= end:
            break
    return found


def split_lines(pieces: Iterable[RowPiece]) -> list[list[RowPiece]]:
    """Pieces, cut at the newlines in them."""
    lines: list[list[RowPiece]] = [[]]
    for piece in pieces:
        first, *rest = piece.text.split("\n")
        if first:
            lines[-1].append(piece._replace(text=first))
        for text in rest:
            lines.append([piece._replace(text=text)] if text else [])
    return lines
