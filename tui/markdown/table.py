"""Tables: columns that share the width; where that leaves too little, each row as lines of "header: value"."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rich.cells import cell_len

from tui.markdown.blocks import Align, LeafBlock, alignments, split_row
from tui.markdown.inline import InlineRun, References, parse, plain_runs
from tui.markdown.prefix import Prefix
from tui.markdown.rows import Row, RowPiece, cut, pieces_of
from tui.markdown.wrap import wrap

# The widths of columns follow from the header and this many rows; so a long table need not be laid out again.
_MEASURED = 40
_NARROWEST = 7  # cells of a column, where it needs them
_BETWEEN = " │ "
Cell = list[RowPiece]


class TableRows:
    """A table at one width. While it grows, only new rows are parsed, and only those whose columns moved are laid out."""

    def __init__(self, leaf: LeafBlock, prefix: Prefix, width: int, references: References, whole: int, markup: bool) -> None:
        self._leaf, self._prefix = leaf, prefix
        self._parse = partial(parse, references=references) if markup else plain_runs
        self._room = max(width - prefix.width, 4)
        self._align = alignments(leaf.lines[1])
        self._header: list[Cell] = [_styled(cell) for cell in self._cells(leaf.lines[0])]
        self._body: list[list[Cell]] = []
        self._widths: list[int] = []
        self._rows: list[Row] = []
        self._marks: list[int] = []  # rows before each line of the body
        self._whole = 0
        self.grow(whole)

    def grow(self, whole: int) -> int:
        """The leaf has more lines; those before ``whole`` will not change any more. Returns the first row that changed."""
        del self._body[max(self._whole - 2, 0) :]
        for line in self._leaf.lines[len(self._body) + 2 :]:
            self._body.append(self._cells(line))
        widths = self._column_widths()
        if widths != self._widths or not self._rows:
            self._widths, self._rows, self._marks = widths, [], []
        first = len(self._rows)
        if not first:
            self._lay_header()
        done = min(len(self._marks), max(self._whole - 2, 0))
        if done < len(self._marks):
            del self._rows[self._marks[done] :]
            del self._marks[done:]
            first = len(self._rows)
        for cells in self._body[done:]:
            self._marks.append(len(self._rows))
            self._lay(cells)
        self._whole = max(self._whole, whole)
        return first

    def goes_on(self, leaf: LeafBlock) -> bool:
        """These are rows of ``leaf``, which may have grown below its delimiter row."""
        return leaf is self._leaf and leaf.kind == "table" and self._whole >= 2

    @property
    def height(self) -> int:
        return len(self._rows)

    lines = height

    def row(self, y: int) -> Row:
        return self._rows[y]

    def text(self) -> Sequence[str]:
        return ["".join(piece.text for piece in row.pieces if piece.own) for row in self._rows]

    def _cells(self, line: str) -> list[Cell]:
        cells = split_row(line)[: len(self._align)]
        return [pieces_of(_flat(self._parse(cell))) for cell in cells] + [[] for _ in self._align[len(cells) :]]

    def _column_widths(self) -> list[int]:
        """The width of each column; none: too narrow for columns."""
        count = len(self._align)
        room = self._room - len(_BETWEEN) * (count - 1)
        measured = [self._header, *self._body[:_MEASURED]]
        wanted = [max(max(_width(row[i]) for row in measured), 1) for i in range(count)]
        if sum(wanted) <= room:
            return wanted
        least = [min(width, _NARROWEST) for width in wanted]
        if sum(least) > room:
            return []
        return _share(wanted, least, room)

    def _lay_header(self) -> None:
        if not self._widths:
            return
        self._lay(self._header)
        self._add([RowPiece("─┼─".join("─" * width for width in self._widths), "edge")])

    def _lay(self, cells: list[Cell]) -> None:
        if self._widths:
            self._lay_columns(cells)
        else:
            self._lay_record(cells)

    def _lay_columns(self, cells: list[Cell]) -> None:
        wrapped = [_wrapped(cell, width) for cell, width in zip(cells, self._widths, strict=True)]
        for i in range(max(len(rows) for rows in wrapped)):
            pieces: list[RowPiece] = []
            for column, (rows, width, align) in enumerate(zip(wrapped, self._widths, self._align, strict=True)):
                if column:
                    pieces.append(RowPiece(_BETWEEN, "edge"))
                pieces += _aligned(rows[i] if i < len(rows) else [], width, align)
            self._add(pieces)

    def _lay_record(self, cells: list[Cell]) -> None:
        """One row of the table as lines; a thin line between two of them."""
        if self._rows:
            self._add([RowPiece("─" * min(self._room, 12), "edge")])
        for name, value in zip(self._header, cells, strict=True):
            line = [*name, RowPiece(": ", "head"), *value]
            for row in _wrapped(line, self._room):
                self._add(row)

    def _add(self, pieces: list[RowPiece]) -> None:
        prefix = self._prefix.first if not self._rows else self._prefix.rest
        self._rows.append(Row((*prefix, *pieces), len(self._rows)))


def _flat(runs: list[InlineRun]) -> list[InlineRun]:
    return [run._replace(text=run.text.replace("\n", " ")) for run in runs]


def _styled(cell: Cell) -> Cell:
    return [piece._replace(style=f"head {piece.style}".strip()) for piece in cell]


def _width(cell: Cell) -> int:
    return sum(cell_len(piece.text) for piece in cell)


def _wrapped(cell: Cell, width: int) -> list[Cell]:
    text = "".join(piece.text for piece in cell)
    return [cut(cell, start, end) for start, end in wrap(text, max(width, 2))]


def _aligned(cell: Cell, width: int, align: Align) -> Cell:
    spare = max(width - _width(cell), 0)
    left = spare if align == "right" else spare // 2 if align == "center" else 0
    return [*([RowPiece(" " * left)] if left else []), *cell, *([RowPiece(" " * (spare - left))] if spare > left else [])]


def _share(wanted: list[int], least: list[int], room: int) -> list[int]:
    """Widths that fill ``room``: narrow columns get what they want, wide ones the same each of what is left."""
    widths = list(least)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i] - least[i])
    spare = room - sum(least)
    for left, i in zip(range(len(order), 0, -1), order, strict=True):
        more = min(wanted[i] - least[i], spare // left)
        widths[i] += more
        spare -= more
    return widths
