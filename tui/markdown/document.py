"""A Markdown text that grows at its end, as rows: what is finished stays laid out, only the last leaf is looked at again."""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import islice

from agent.text import DisplayStream
from tui.markdown.blocks import MAX_LINE, LeafBlock
from tui.markdown.code import CodeRows
from tui.markdown.inline import References, without_towers
from tui.markdown.layout import MAX_MARKUP, Laid, lay, markup_cost
from tui.markdown.prefix import gap_of
from tui.markdown.reader import BlockReader, Mark
from tui.markdown.rows import Row, Rows
from tui.markdown.table import TableRows

# A line that began with one of these may yet become anything: while the text streams in, it waits for its next character.
_UNDECIDED = re.compile(r"[ >]*(?:[-=*_+#~`|:]+|\d{1,9}[.)]?) *$")


class Document:
    """Rows of a text at one width. Equal sources give equal rows, however they came, once ``finish`` was called."""

    def __init__(self) -> None:
        self._reader = BlockReader()
        self._mark: Mark = self._reader.mark()
        self._partial = ""  # the last line, which may grow
        self._long = False  # it goes on with a line that was cut
        self._shown = DisplayStream()
        self._held = ""  # a carriage return that may be half a newline
        self._finished = False
        self._width = 0
        self._references = References()
        self._defined = 0
        self._users: dict[str, set[int]] = {}  # label without a definition -> leaves that use it
        self._laid: list[Laid] = []
        self._tops = [0]  # first row of each leaf, its gap before it, and behind the last
        self._texts = [0]  # first line of text likewise
        self._spent = [0]  # markup parsed before each leaf

    @property
    def height(self) -> int:
        return self._tops[-1]

    @property
    def leaves(self) -> list[LeafBlock]:
        return self._reader.leaves

    def append(self, text: str) -> int:
        """More text. Returns the first row that may have changed."""
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        return self._take(self._shown.feed(text.removesuffix("\r").replace("\r\n", "\n")))

    def finish(self) -> int:
        """Nothing more comes. Returns the first row that may have changed."""
        self._finished = True
        held, self._held = self._held, ""
        return self._take(self._shown.feed(held) + self._shown.end())

    def resize(self, width: int) -> None:
        """Lay the text out for ``width`` cells, unless it is."""
        if width != self._width:
            self._width = width
            self._users.clear()
            self._laid, self._tops, self._texts, self._spent = [], [0], [0], [0]  # without a width there are no rows
            self._lay_from(0, set())

    def row(self, y: int) -> tuple[Row, int, int]:
        """The row at ``y``, the number of the text line that it shows, and of its leaf (-1: between leaves)."""
        index = bisect_right(self._tops, y) - 1
        leaf = self._reader.leaves[index]
        inner = y - self._tops[index]
        line = self._texts[index]
        if self._gap(index):
            if inner == 0:
                return Row(gap_of(leaf.frames, self._reader.leaves[index - 1].frames, self._width), 0), line, -1
            inner, line = inner - 1, line + 1
        row = self._laid[index].row(inner)
        return row, line + row.line, index

    def text(self) -> str:
        """All that can be selected; lines are those that ``row`` counts."""
        lines: list[str] = []
        for index, laid in enumerate(self._laid):
            if self._gap(index):
                lines.append("")
            lines += laid.text()
        return "\n".join(lines)

    def _gap(self, index: int) -> bool:
        if index == 0:
            return False
        leaf = self._reader.leaves[index]
        return not leaf.glued and (leaf.gap or leaf.kind == "heading")

    def _take(self, text: str) -> int:
        reader, first = self._reader, max(self._mark.leaves - 1, 0)
        reader.rewind(self._mark)
        *whole, self._partial = (self._partial + text).split("\n")
        self._read_lines(whole)
        if self._finished and self._partial:
            self._read(self._partial)
            self._partial = ""
        cut = (len(self._partial) - 1) // MAX_LINE * MAX_LINE
        if cut > 0:
            self._read(self._partial[:cut])
            self._partial = self._partial[cut:]
        self._mark = reader.mark()
        changed = self._define()
        self._guess()
        return self._lay_from(first, changed)

    def _read_lines(self, lines: list[str]) -> None:
        blank = False
        at = 0
        while at < len(lines):
            if not self._long and (many := self._reader.read_many(lines, at)):
                at += many
                continue
            line = lines[at]
            if line or not blank or not self._reader.idle:
                self._read(line)
                self._long = False
            blank = not line
            at += 1

    def _read(self, line: str) -> None:
        """A line, or part of one, for good."""
        for at in range(0, max(len(line), 1), MAX_LINE):
            piece = without_towers(line[at : at + MAX_LINE])
            if not self._long:
                self._reader.read(piece)
                self._long = True
            elif piece:
                self._reader.read_more(piece)

    def _guess(self) -> None:
        """What the text so far would be if it ended here."""
        partial = self._partial + self._shown.waiting
        if partial and self._long:
            self._reader.read_more(without_towers(partial))
        elif partial and not _UNDECIDED.match(partial):
            self._reader.read(without_towers(partial), whole=False)
        self._reader.end()

    def _define(self) -> set[int]:
        """Take in new link definitions; returns the leaves that waited for them."""
        waiting: set[int] = set()
        for label, address in islice(self._reader.definitions.items(), self._defined, None):
            waiting |= self._users.pop(self._references.define(label, address), set())
        self._defined = len(self._reader.definitions)
        return waiting

    def _lay_from(self, first: int, changed: set[int]) -> int:
        """Lay out all leaves from ``first`` on and those that ``changed``. Returns the first row that may differ."""
        if not self._width:
            return 0
        known = self._laid
        first = min(first, len(known))
        start = min([first, *changed])
        self._laid = known[:start]
        same = 0
        for values in (self._tops, self._texts, self._spent):
            del values[start + 1 :]
        for index in range(start, len(self._reader.leaves)):
            if index < first and index not in changed:
                laid = known[index]
            else:
                before = known[index] if index < len(known) and index not in changed else None
                laid, unchanged = self._lay(index, before)
                if index == start and unchanged:
                    same = unchanged + self._gap(index)
            self._laid.append(laid)
            gap = self._gap(index)
            self._tops.append(self._tops[-1] + laid.height + gap)
            self._texts.append(self._texts[-1] + laid.lines + gap)
            self._spent.append(self._spent[-1] + markup_cost(self._reader.leaves[index]))
        return self._tops[start] + same

    def _lay(self, index: int, known: Laid | None) -> tuple[Laid, int]:
        """A leaf's rows, and how many at their top are those that it had before."""
        leaf, last = self._reader.leaves[index], self._mark.last
        whole = last[4] if last is not None and last[0] is leaf and self._mark.open is leaf else len(leaf.lines)
        self._references.missed.clear()
        if isinstance(known, CodeRows | TableRows) and known.goes_on(leaf):
            same = known.grow(whole)
            laid: Laid = known
        else:
            laid = lay(leaf, self._width, self._references, whole=whole, markup=self._spent[index] < MAX_MARKUP)
            same = laid.same(known) if isinstance(laid, Rows) and isinstance(known, Rows) else 0
        for label in self._references.missed:
            self._users.setdefault(label, set()).add(index)
        return laid, same
