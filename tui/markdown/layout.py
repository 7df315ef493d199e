"""One leaf at one width: which rows it takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tui.markdown.blocks import LeafBlock
from tui.markdown.code import CodeRows
from tui.markdown.inline import InlineRun, References, is_plain, parse, plain_runs
from tui.markdown.prefix import Prefix, prefix_of
from tui.markdown.rows import Row, RowPiece, Rows, cut, pieces_of, split_lines
from tui.markdown.table import TableRows
from tui.markdown.wrap import fold, wrap

# What of one text is parsed for markup; the rest of a text that is longer than any answer is shown as it is. Characters.
MAX_MARKUP = 65_536
# Each leaf with markup costs at least this much of it.
_LEAST = 16
Breaks = Callable[[str, int], list[tuple[int, int]]]
_TASK = re.compile(r"\[([ xX])\] +")


def markup_cost(leaf: LeafBlock) -> int:
    """What parsing a leaf takes from ``MAX_MARKUP``."""
    if leaf.kind in ("fence", "code", "rule", "definition", "plain"):
        return 0
    return sum(max(len(line), _LEAST) for line in leaf.lines if not is_plain(line))


class OneRow:
    """A paragraph that certainly takes one row: read only when it is looked at."""

    height = lines = 1

    def __init__(self, leaf: LeafBlock, prefix: Prefix, text: str) -> None:
        self._leaf, self._prefix, self._source = leaf, prefix, text

    def row(self, y: int) -> Row:
        return Row((*self._prefix.first, RowPiece(self._source)), 0)

    def text(self) -> Sequence[str]:
        return [_own(self._prefix.first) + self._source]


Laid = OneRow | Rows | CodeRows | TableRows


def lay(leaf: LeafBlock, width: int, references: References, *, whole: int, markup: bool = True) -> Laid:
    """Rows of ``leaf``.

    Args:
        width: cells of the screen, at least 1; for less than 8 cells the rows are 8 wide, and the screen cuts them.
        whole: lines of a growing leaf that will not change any more.
        markup: parse it; otherwise its text is shown as it is.
    """
    width = max(width, 8)
    if leaf.kind in ("fence", "code", "plain"):
        return CodeRows(leaf, prefix_of(leaf, width), width, whole)
    if leaf.kind == "table":
        return TableRows(leaf, prefix_of(leaf, width), width, references, whole, markup)
    if leaf.kind == "rule":
        prefix = prefix_of(leaf, width)
        return Rows([Row((*prefix.first, RowPiece("─" * (width - prefix.width), "rule")), 0)], [_own(prefix.first) + "───"])
    if leaf.kind == "definition":
        return _lay_runs(leaf, [run._replace(style="href") for run in plain_runs(leaf.lines[0])], prefix_of(leaf, width), width)
    return _lay_paragraph(leaf, width, references, markup)


def _lay_paragraph(leaf: LeafBlock, width: int, references: References, markup: bool) -> Laid:
    text = "\n".join(line.rstrip(" ") for line in leaf.lines)
    task = _TASK.match(text) if leaf.opens and leaf.frames and not leaf.frames[-1].quote and leaf.kind == "paragraph" else None
    prefix = prefix_of(leaf, width, "" if task is None else "☐" if task[1] == " " else "☑")
    if task is not None:
        text = text[task.end() :]
    if leaf.kind == "paragraph" and len(text) <= width - prefix.width and text.isascii() and "\n" not in text and is_plain(text):
        return OneRow(leaf, prefix, text)
    if leaf.kind == "heading":
        text = text.replace("\n", " ")
    if not markup:
        return _lay_runs(leaf, plain_runs(text), prefix, width, breaks=wrap if text.isascii() else fold)
    return _lay_runs(leaf, _titled(leaf, parse(text, references)), prefix, width)


def _titled(leaf: LeafBlock, runs: list[InlineRun]) -> list[InlineRun]:
    """The runs of a heading, with its level told by more than colour."""
    if leaf.kind != "heading":
        return runs
    style = f"h{min(leaf.level, 3)}"
    sign = [] if leaf.level < 3 else [InlineRun("#" * leaf.level + " ", f"{style} sign")]
    return [*sign, *(run._replace(style=f"{style} {run.style}".strip()) for run in runs)]


def _lay_runs(leaf: LeafBlock, runs: list[InlineRun], prefix: Prefix, width: int, breaks: Breaks = wrap) -> Rows:
    rows: list[Row] = []
    lines: list[str] = []
    room = max(width - prefix.width, 2)
    for pieces in split_lines(pieces_of(runs)):
        text = "".join(piece.text for piece in pieces)
        number = len(lines)
        marker = _own(prefix.first) if not number else ""
        for start, end in breaks(text, room):
            left = prefix.first if not rows else prefix.rest
            offset = 0 if not rows else len(marker) + start
            rows.append(Row((*left, *cut(pieces, start, end)), number, offset))
        lines.append(marker + text)
    return Rows(rows, lines)


def _own(pieces: Sequence[RowPiece]) -> str:
    return "".join(piece.text for piece in pieces if piece.own)
