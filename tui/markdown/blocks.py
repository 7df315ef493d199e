"""What a Markdown text is made of here: a flat row of leaves, each with the containers that it stands in.

No tree: the text of an answer only grows at its end, so all leaves but the last are finished, and so are their rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

Align = Literal["left", "center", "right"]
LeafKind = Literal["paragraph", "heading", "fence", "code", "rule", "table", "definition", "plain"]

# Deeper quotes and lists are shown as the text that they are: a screen has no room for them.
MAX_DEPTH = 12
# A longer line is cut, a longer paragraph parsed in pieces: what is read again at every append stays small. Characters.
MAX_LINE = 4096
MAX_DEFINITIONS = 200
# A text with more leaves is not an answer: what comes after them is one last leaf of plain lines.
MAX_LEAVES = 2_000
MAX_LINES = 10_000  # likewise, outside of fences
MAX_COLUMNS = 64
MAX_CELLS = 10_000  # in all tables of a text
_DELIMITER = re.compile(r"[-:|][-:| ]+$")
_COLUMN = re.compile(r":?-+:?$")
_PIPE = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True, slots=True, eq=False)
class BlockFrame:
    """A quote or a list item, open around leaves. Two are the same only if they are one object."""

    marker: str  # "" of a quote; "-", "+", "*" or "3." of an item
    width: int = 0  # columns that the lines of an item are indented by
    indent: int = 0  # columns before the marker

    @property
    def quote(self) -> bool:
        return not self.marker


@dataclass(slots=True, eq=False)
class LeafBlock:
    """One block of text. ``lines`` only grows, and only while it is the last leaf."""

    kind: LeafKind
    frames: tuple[BlockFrame, ...] = ()
    opens: int = 0  # how many of the frames, from the innermost out, begin here: their markers are shown
    gap: bool = False  # a blank line comes before
    glued: bool = False  # it goes on with the paragraph before it, which grew too long
    level: int = 0  # of a heading
    info: str = ""  # of a fence: the words after its marker
    fence: tuple[str, int, int] = ("", 0, 0)  # character, length, indentation of the opening marker
    size: int = 0  # of a paragraph: its characters, short lines counted as longer
    lines: list[str] = field(default_factory=list)
    joined: set[int] = field(default_factory=set)  # lines of a fence that go on with the one before: it was too long

    @property
    def language(self) -> str:
        return self.info.split()[0] if self.info.strip() else ""

    def code(self) -> str:
        """The text of a fence or an indented block, as it would be copied."""
        if not self.joined:
            return "\n".join(self.lines)
        return "".join(line if i in self.joined or not i else "\n" + line for i, line in enumerate(self.lines))


def split_row(line: str) -> list[str]:
    """The cells of a table's row. A pipe behind a backslash belongs to its cell."""
    return [cell.replace("\\|", "|").strip() for cell in _between_pipes(line.strip())]


def alignments(line: str) -> list[Align]:
    """How each column is aligned; empty if the line is not a delimiter row, or has more columns than a table may have here."""
    if not _DELIMITER.match(line) or line.startswith("- ") or line.count("|") > MAX_COLUMNS + 1:
        return []
    columns = [column.strip() for column in _between_pipes(line.strip())]
    return [_alignment(column) for column in columns] if all(map(_COLUMN.match, columns)) else []


def _between_pipes(line: str) -> list[str]:
    """What pipes part; a row may begin and end with one."""
    cells = _PIPE.split(line)
    if cells and not cells[0]:
        del cells[0]
    if cells and not cells[-1]:
        del cells[-1]
    return cells


def _alignment(column: str) -> Align:
    if column.endswith(":"):
        return "center" if column.startswith(":") else "right"
    return "left"
