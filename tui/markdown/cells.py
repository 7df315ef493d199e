"""The lines of a table, cut into cells."""

from __future__ import annotations

import re
from typing import Literal

from tui.markdown.blocks import MAX_COLUMNS

Align = Literal["left", "center", "right"]

_DELIMITER = re.compile(r"[-:|][-:| ]+$")
_COLUMN = re.compile(r":?-+:?$")
_PIPE = re.compile(r"(?<!\\)\|")


def split_row(line: str) -> list[str]:
    """The cells of a row. A pipe behind a backslash belongs to its cell."""
    cells = [cell.replace("\\|", "|") for cell in _PIPE.split(line.strip())]
    if cells and not cells[0]:
        del cells[0]
    if cells and not cells[-1]:
        del cells[-1]
    return [cell.strip() for cell in cells]


def alignments(line: str) -> list[Align]:
    """How each column is aligned; empty if the line is not a delimiter row, or has more columns than a table may have here."""
    if not _DELIMITER.match(line) or line.startswith("- ") or line.count("|") > MAX_COLUMNS + 1:
        return []
    columns = [column.strip() for column in line.split("|")]
    if not columns[0]:
        del columns[0]
    if columns and not columns[-1]:
        del columns[-1]
    if not all(_COLUMN.match(column) for column in columns):
        return []
    return [_alignment(column) for column in columns]


def delimiter_columns(line: str) -> int:
    """How many columns a delimiter row has; 0 if the line is not one."""
    return len(alignments(line))


def _alignment(column: str) -> Align:
    if column.endswith(":"):
        return "center" if column.startswith(":") else "right"
    return "left"
