"""Code blocks: rows are made only where somebody looks, and colours only for whole lines near them.

pygments is imported when the first code block of a language that it knows is shown.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from rich.cells import cell_len

from tui.markdown.blocks import LeafBlock
from tui.markdown.prefix import Prefix
from tui.markdown.rows import Row, RowPiece, cut, split_lines
from tui.markdown.wrap import fold

if TYPE_CHECKING:
    from pygments.lexer import Lexer
    from pygments.token import _TokenType

# Lines are coloured in portions of this many, with as many before them read along: a long string may begin there.
_PORTION = 20
# More characters than this between two looks are not a program that somebody reads.
_MAX_CODE = 16_384
_MAX_LINE = 1_000
_MAX_NAME = 32
_STYLES = {
    "Comment": "comment", "Keyword": "keyword", "String": "string", "Number": "number", "Decorator": "function",
    "Function": "function", "Class": "function", "Tag": "keyword", "Builtin": "builtin", "Constant": "number",
    "Attribute": "builtin", "Inserted": "inserted", "Deleted": "deleted", "Heading": "keyword", "Subheading": "keyword",
}  # fmt: skip


class CodeRows:
    """A fence or an indented block at one width. While it grows, only its new lines are looked at."""

    def __init__(self, leaf: LeafBlock, prefix: Prefix, width: int, whole: int) -> None:
        self._leaf, self._prefix = leaf, prefix
        self._bar = leaf.kind != "plain"
        self._width = max(width - prefix.width - 2 * self._bar, 2)
        self._header = leaf.kind == "fence"
        self._tops = [int(self._header)]  # first row of each line, and behind the last
        self._colours: dict[
            int, tuple[int, list[list[RowPiece]]]
        ] = {}  # first line of a portion -> whole lines known then, their pieces
        self._whole = 0
        self.grow(whole)

    def grow(self, whole: int) -> int:
        """The leaf has more lines; those before ``whole`` will not change any more. Returns the first row that changed."""
        before = self._whole
        del self._tops[before + 1 :]
        self._whole = max(whole, before)
        first = top = self._tops[-1]
        width = self._width
        add = self._tops.append
        for line in self._leaf.lines[before:]:
            size = len(line) if line.isascii() else cell_len(line)
            top += 1 if size <= width else len(fold(line, width))
            add(top)
        return min(first, self._tops[self._recolour(before)])

    def _recolour(self, before: int) -> int:
        """The first line whose colours changed, now that those from ``before`` on are whole."""
        begin = before - before % _PORTION
        known = self._colours.get(begin)
        if known is None or self._whole == before:
            return before
        pairs = zip(known[1], self._coloured(begin), strict=False)
        return begin + next((i for i, (old, new) in enumerate(pairs) if old != new), before - begin)

    def goes_on(self, leaf: LeafBlock) -> bool:
        """These are rows of ``leaf``, which may have grown."""
        return leaf is self._leaf

    @property
    def height(self) -> int:
        return self._tops[-1]

    @property
    def lines(self) -> int:
        return len(self._leaf.lines)

    def text(self) -> Sequence[str]:
        return self._leaf.lines

    def row(self, y: int) -> Row:
        prefix = self._prefix.first if y == 0 else self._prefix.rest
        if self._header and y == 0:
            return Row((*(piece._replace(own=False) for piece in prefix), *self._title()), 0)
        index = bisect_right(self._tops, y) - 1
        pieces = self._line(index)
        text = "".join(piece.text for piece in pieces)
        start, end = fold(text, self._width)[y - self._tops[index]]
        shown_pieces = cut(pieces, start, end)
        room = self._width - cell_len(text[start:end])
        if not self._bar:
            return Row(tuple(shown_pieces), index, start)
        bar = RowPiece("│ " if start == 0 else "┊ ", "fence edge", own=False)
        fill = RowPiece(" " * room, "fence", own=False)
        return Row((*(piece._replace(own=False) for piece in prefix), bar, *shown_pieces, fill), index, start)

    def _title(self) -> tuple[RowPiece, ...]:
        copy = "copy", ""
        room = self._width + 2
        mark = " copy " if room >= 16 else ""  # words only: the signs for it are in few fonts
        name = self._leaf.language
        if cell_len(name) > room - len(mark) - 4:
            name = ""
        name = f" {name} " if name else ""
        line = "─" * (room - 2 - cell_len(name) - len(mark))
        return (
            RowPiece("┌─", "fence edge", copy, own=False),
            RowPiece(name, "fence title", copy, own=False),
            RowPiece(line, "fence edge", copy, own=False),
            RowPiece(mark, "fence copy", copy, own=False),
        )

    def _line(self, index: int) -> list[RowPiece]:
        """A line in colour; one that may still grow, or has no colours, is plain."""
        if index < self._whole and self._leaf.language:
            return self._coloured(index - index % _PORTION)[index % _PORTION]
        return [RowPiece(self._leaf.lines[index], "fence" if self._bar else "")]

    def _coloured(self, begin: int) -> list[list[RowPiece]]:
        """The whole lines of the portion from ``begin`` on."""
        stop = min(begin + _PORTION, self._whole)
        known = self._colours.get(begin)
        if known is None or known[0] != stop:
            lines = self._leaf.lines[max(begin - _PORTION, 0) : stop]
            known = self._colours[begin] = (stop, highlight(lines, self._leaf.language)[begin - stop :])
        return known[1]


def highlight(lines: list[str], language: str) -> list[list[RowPiece]]:
    """Each line in pieces whose texts together are the line."""
    lexer = _lexer(language) if len(language) <= _MAX_NAME else None
    if lexer is None or sum(map(len, lines)) > _MAX_CODE or max(map(len, lines)) > _MAX_LINE:
        return _plain(lines)
    code = "\n".join(lines)
    pieces = [RowPiece(text, _style(token)) for token, text in lexer.get_tokens(code)]
    if "".join(piece.text for piece in pieces) != code:
        return _plain(lines)  # a lexer that does more than read
    return split_lines(pieces)


def _plain(lines: list[str]) -> list[list[RowPiece]]:
    return [[RowPiece(line, "fence")] for line in lines]


@cache
def _style(token: _TokenType) -> str:
    for name in reversed([part for part in str(token).split(".") if part]):
        if name in _STYLES:
            return f"fence {_STYLES[name]}"
    return "fence"


@lru_cache(64)
def _lexer(language: str) -> Lexer | None:
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer: Lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None
    return None if type(lexer).__name__ == "TextLexer" else lexer
