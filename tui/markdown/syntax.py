"""Colours of code, as style names. pygments is imported when the first code block of a language that it knows is shown."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

from tui.markdown.rows import RowPiece, split_lines

if TYPE_CHECKING:
    from pygments.lexer import Lexer
    from pygments.token import _TokenType

# More characters than this between two looks are not a program that somebody reads.
_MAX_CODE = 16_384
_MAX_LINE = 1_000
_MAX_NAME = 32
_STYLES = {
    "Comment": "comment", "Keyword": "keyword", "String": "string", "Number": "number", "Decorator": "function",
    "Function": "function", "Class": "function", "Tag": "keyword", "Builtin": "builtin", "Constant": "number",
    "Attribute": "builtin", "Inserted": "inserted", "Deleted": "deleted", "Heading": "keyword", "Subheading": "keyword",
}  # fmt: skip


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
