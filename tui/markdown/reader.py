"""Lines to leaves, by the algorithm of the CommonMark specification's appendix, one line at a time.

markdown-it reads a block again from its start, so an answer that streams in would cost the square of its length. This reader
looks at each line once. It differs from CommonMark in what suits a chat: HTML is text, link reference definitions take one
line and are shown, and nothing is nested more than MAX_DEPTH deep.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tui.markdown.blocks import (
    MAX_CELLS,
    MAX_DEFINITIONS,
    MAX_DEPTH,
    MAX_LEAVES,
    MAX_LINE,
    MAX_LINES,
    BlockFrame,
    LeafBlock,
    LeafKind,
    alignments,
    split_row,
)
from tui.markdown.inline import without_towers

_FENCE = re.compile(r"(`{3,}|~{3,})(.*)", re.DOTALL)
_HEADING = re.compile(r"(#{1,6})(?: +|$)")
_SETEXT = re.compile(r"(=+|-+) *$")
_RULE = re.compile(r"(?:(?:\* *){3,}|(?:- *){3,}|(?:_ *){3,})$")
_ITEM = re.compile(r"([-+*]|(\d{1,9})[.)])( +|$)")
_DEFINITION = re.compile(r"\[((?:[^\[\]\\]|\\.)+)\]: *(<[^<>]*>|[^\s<]\S*)(?: +(?:\"[^\"]*\"|'[^']*'|\([^()]*\)))? *$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a reader stood, to come back to after a line that may still grow."""

    leaves: int
    last: tuple[LeafBlock, LeafKind, int, int, int, str] | None  # with its kind, level, size, number of lines and last line
    open: LeafBlock | None
    state: dict[str, Any]  # all attributes of the reader


class BlockReader:
    """Leaves, from lines. Beside the leaves and the definitions, which grow, all its state is immutable: see ``mark``."""

    def __init__(self) -> None:
        self.leaves: list[LeafBlock] = []
        self.definitions: dict[str, str] = {}  # label -> address, as written
        self._open: LeafBlock | None = None
        self._frames: tuple[BlockFrame, ...] = ()
        self._lists: tuple[tuple[str, int] | None, ...] = ()  # at each depth the list that goes on there: delimiter, last number
        self._blank = False
        self._pending = 0  # innermost frames that no leaf shows yet
        self._cells = 0  # in all tables
        self._count = 0  # lines outside of fences
        self._hollow = 0  # blank lines behind indented code, which may go on
        self._deep = False  # the open paragraph's last line was indented like code: no header of a table

    def mark(self) -> Mark:
        leaf = self.leaves[-1] if self.leaves else None
        last = (leaf, leaf.kind, leaf.level, leaf.size, len(leaf.lines), leaf.lines[-1] if leaf.lines else "") if leaf else None
        return Mark(len(self.leaves), last, self._open, {**vars(self)})

    def rewind(self, mark: Mark) -> None:
        """Forget what was read since ``mark``, the latest. Definitions are kept: they are only taken from whole lines."""
        del self.leaves[mark.leaves :]
        if mark.last is not None:
            leaf, kind, level, size, count, line = mark.last
            leaf.kind, leaf.level, leaf.size = kind, level, size
            if len(leaf.lines) < count:
                leaf.lines.append(line)
            del leaf.lines[count:]
            if leaf.joined:
                leaf.joined = {index for index in leaf.joined if index < count}
        vars(self).update(mark.state)

    def read(self, line: str, *, whole: bool = True) -> None:
        """One line without its newline; not ``whole``: more of it may come, and ``rewind`` will be called before that."""
        line = line.expandtabs(4)
        leaf = self._open
        if leaf is not None and leaf.kind == "plain":
            leaf.lines.append(line)
            return
        if leaf is None or leaf.kind != "fence":
            self._count += 1
            if self._count > MAX_LINES or len(self.leaves) >= MAX_LEAVES:
                self._add("plain", (), 0, [line])
                return
        at, matched = self._match(line) if self._frames else (0, 0)
        if leaf is not None and matched == len(self._frames):
            if leaf.kind == "fence":
                self._read_fence(leaf, line[at:])
                return
            if leaf.kind == "code" and self._read_code(leaf, line[at:]):
                return
        self._read_blocks(line, at, matched, whole)

    def read_many(self, lines: Sequence[str], at: int) -> int:
        """Read the lines from ``at`` on that certainly belong to an open fence, or to the plain end; returns how many."""
        leaf = self._open
        if leaf is None or self._frames or leaf.kind not in ("fence", "plain") or leaf.fence[2]:
            return 0
        stop = leaf.fence[0] * leaf.fence[1]
        before = len(leaf.lines)
        for line in islice(lines, at, None):
            if (stop and stop in line) or len(line) > MAX_LINE:
                break
            leaf.lines.append(without_towers(line.expandtabs(4)))
        return len(leaf.lines) - before

    @property
    def idle(self) -> bool:
        """No leaf is open: another blank line would change nothing."""
        return self._open is None

    def read_more(self, text: str) -> None:
        """The rest of a line that was too long: it goes on where the line ended, as text."""
        leaf = self._open
        if leaf is not None and leaf.kind in ("fence", "plain"):
            leaf.joined.add(len(leaf.lines))
            leaf.lines.append(text)
            return
        self._add("paragraph", self._frames, 0, [text]).glued = True

    def end(self) -> None:
        """No more lines: an item without text is shown too."""
        self._close(0)

    def _match(self, line: str) -> tuple[int, int]:
        """How far the line goes on with the open containers: its position behind their markers, their number."""
        at = 0
        for depth, frame in enumerate(self._frames):
            body = line[at:].lstrip(" ")
            indent = len(line) - at - len(body)
            if frame.quote:
                if indent > 3 or not body.startswith(">"):
                    return at, depth
                at += indent + 1
                at += line.startswith(" ", at)
            elif not body:
                if self._pending and depth == len(self._frames) - 1:
                    return at, depth  # an item begins with at most one blank line
                at = min(at + frame.width, len(line))
            elif indent >= frame.width:
                at += frame.width
            else:
                return at, depth
        return at, len(self._frames)

    def _read_fence(self, leaf: LeafBlock, text: str) -> None:
        mark, length, indent = leaf.fence
        if mark in text[:4]:
            body = text.strip(" ")
            if body == mark * len(body) and len(body) >= length and not text.startswith("    "):
                self._open = None
                return
        spare = min(indent, len(text) - len(text.lstrip(" "))) if indent else 0
        leaf.lines.append(text[spare:] if spare else text)

    def _read_code(self, leaf: LeafBlock, text: str) -> bool:
        """Blank lines belong to the block once a line of code comes after them."""
        if not text.strip(" "):
            self._hollow += 1
            self._blank = True
            return True
        if not text.startswith("    "):
            return False
        leaf.lines += [""] * self._hollow + [text[4:]]
        self._hollow, self._blank = 0, False
        return True

    def _read_blocks(self, line: str, at: int, matched: int, whole: bool) -> None:
        frames = self._frames[:matched]
        new = 0
        inside = matched == len(self._frames)
        paragraph = self._open if self._open is not None and self._open.kind == "paragraph" else None
        while True:
            body = line[at:].lstrip(" ")
            indent = len(line) - at - len(body)
            if not body:
                self._read_blank(frames, new)
                return
            if indent > 3:
                break
            item = None
            if len(frames) < MAX_DEPTH:
                if body[0] == ">":
                    at += indent + 1
                    at += line.startswith(" ", at)
                    frames += (self._open_quote(frames, new),)
                    new, paragraph = new + 1, None
                    continue
                item = _ITEM.match(body)
            if self._read_leaf(body, indent, frames, new, paragraph if inside else None):
                return
            if item is None or (paragraph and inside and not _may_interrupt(item, body)):
                break
            after = len(item[3]) if item.end() < len(body) else 5
            width = indent + len(item[1]) + (after if after < 5 else 1)
            frames += (self._open_item(frames, new, item, width, indent),)
            at = min(at + width, len(line))
            new, paragraph = new + 1, None
        if paragraph:
            self._go_on(paragraph, body, indent > 3)
        elif indent > 3:
            self._add("code", frames, new, [line[at + 4 :]])
        elif self._open and self._open.kind == "table" and inside and not new and self._cells < MAX_CELLS:
            self._open.lines.append(body)
            self._cells += body.count("|") + 1
        else:
            self._begin_paragraph(body, frames, new, whole)

    def _read_leaf(self, body: str, indent: int, frames: tuple[BlockFrame, ...], new: int, paragraph: LeafBlock | None) -> bool:
        """The leaves that one line is enough to know. ``paragraph``: the one that this line would go on with."""
        first = body[0]
        if first in "`~" and (fence := _FENCE.match(body)) and not (first == "`" and "`" in fence[2]):
            leaf = self._add("fence", frames, new, [])
            leaf.info, leaf.fence = fence[2].strip(), (first, len(fence[1]), indent)
            return True
        if first == "#" and (heading := _HEADING.match(body)):
            leaf = self._add("heading", frames, new, [_without_closing(body[heading.end() :])])
            leaf.level, self._open = len(heading[1]), None
            return True
        if paragraph is not None:
            if first in "|-:" and self._begin_table(paragraph, body):
                return True
            if first in "=-" and (underline := _SETEXT.match(body)):
                paragraph.kind, paragraph.level, self._open = "heading", 1 if underline[1][0] == "=" else 2, None
                return True
        if first in "*-_" and _RULE.match(body):
            self._add("rule", frames, new, [])
            self._open = None
            return True
        return False

    def _read_blank(self, frames: tuple[BlockFrame, ...], new: int) -> None:
        if new:
            self._leave(len(frames) - new)
            self._frames, self._pending = frames, self._pending + new
        else:
            self._close(len(frames))
            self._blank = True
        self._open = None

    def _go_on(self, paragraph: LeafBlock, body: str, deep: bool) -> None:
        self._deep = deep
        if paragraph.size + _size(body) <= MAX_LINE:
            paragraph.lines.append(body)
            paragraph.size += _size(body)
        else:
            self._add("paragraph", self._frames, 0, [body]).glued = True

    def _begin_paragraph(self, body: str, frames: tuple[BlockFrame, ...], new: int, whole: bool) -> None:
        found = _DEFINITION.match(body) if body[0] == "[" and len(self.definitions) < MAX_DEFINITIONS else None
        if found is None or not found[1].strip():
            self._add("paragraph", frames, new, [body])
            self._deep = False
            return
        self._add("definition", frames, new, [body.rstrip(" ")])
        self._open = None
        if whole:
            address = found[2]
            self.definitions.setdefault(found[1], address[1:-1] if address.startswith("<") else address)

    def _begin_table(self, paragraph: LeafBlock, body: str) -> bool:
        header = paragraph.lines[-1]
        if "|" not in header or self._deep or self._cells >= MAX_CELLS:
            return False
        if not (columns := len(alignments(body))) or len(split_row(header)) != columns:
            return False
        self._cells += 2 * columns
        if len(paragraph.lines) == 1 and not paragraph.glued:
            paragraph.kind = "table"
            paragraph.lines.append(body)
            return True
        if len(paragraph.lines) == 1:
            return False
        paragraph.lines.pop()
        paragraph.size -= _size(header)
        self._add("table", self._frames, 0, [header, body])
        return True

    def _open_quote(self, frames: tuple[BlockFrame, ...], new: int) -> BlockFrame:
        self._interrupt(frames, new)
        self._lists = (*self._lists[: len(frames)], None)
        return BlockFrame("")

    def _open_item(self, frames: tuple[BlockFrame, ...], new: int, item: re.Match[str], width: int, indent: int) -> BlockFrame:
        self._interrupt(frames, new)
        depth, delimiter = len(frames), item[1][-1]
        before = self._lists[depth] if depth < len(self._lists) else None
        number = int(item[2] or 0)
        if before and before[0] == delimiter:
            number = before[1] + 1
        self._lists = (*self._lists[:depth], (delimiter, number))
        return BlockFrame(f"{number}{delimiter}" if item[2] else delimiter, width, indent)

    def _interrupt(self, frames: tuple[BlockFrame, ...], new: int) -> None:
        """A container begins at this line: those that the line does not go on with end."""
        if not new:
            self._close(len(frames))

    def _leave(self, depth: int) -> None:
        """Frames deeper than ``depth`` end; those that nothing was shown of get an empty leaf."""
        unseen = len(self._frames) - depth
        if self._pending and unseen > 0:
            self.leaves.append(LeafBlock("paragraph", self._frames, self._pending, self._blank))
            self._pending, self._blank = 0, False
        self._frames = self._frames[:depth]

    def _close(self, depth: int) -> None:
        self._open = None
        self._leave(depth)

    def _add(self, kind: LeafKind, frames: tuple[BlockFrame, ...], new: int, lines: list[str]) -> LeafBlock:
        """A leaf in ``frames``, the last ``new`` of which begin with it."""
        self._close(len(frames) - new)
        self._lists = self._lists[: len(frames)]
        leaf = LeafBlock(kind, frames, self._pending + new, self._blank, lines=lines, size=sum(map(_size, lines)))
        self.leaves.append(leaf)
        self._frames, self._open, self._pending, self._blank, self._hollow = frames, leaf, 0, False, 0
        return leaf


def _size(line: str) -> int:
    """What a line adds to a paragraph's size: a short one takes a row all the same."""
    return max(len(line) + 1, 32)


def _may_interrupt(item: re.Match[str], body: str) -> bool:
    """A list interrupts a paragraph only with text, and at its first number."""
    return item.end() < len(body) and (item[2] is None or int(item[2]) == 1)


def _without_closing(text: str) -> str:
    """A heading without the #s that may end it."""
    text = text.strip(" ")
    bare = text.rstrip("#")
    return bare.rstrip(" ") if not bare or bare.endswith(" ") else text
