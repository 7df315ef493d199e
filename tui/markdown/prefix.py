"""What stands left of a leaf: the bars of quotes, the markers of list items, and the room below them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tui.markdown.blocks import BlockFrame, LeafBlock
from tui.markdown.rows import RowPiece

_BULLETS = "•◦▪"
_QUOTE = RowPiece("▌ ", "bar", own=False)


class Prefix(NamedTuple):
    """``first`` before the first row of a leaf, ``rest`` before the others; both are ``width`` cells wide."""

    first: tuple[RowPiece, ...]
    rest: tuple[RowPiece, ...]
    width: int


NO_PREFIX = Prefix((), (), 0)


def prefix_of(leaf: LeafBlock, width: int, task: str = "") -> Prefix:
    """The prefix of a leaf on a screen of ``width`` cells, of which it takes at most half: what is too deep moves left.

    Args:
        task: the box that replaces the innermost bullet.
    """
    if not leaf.frames:
        return NO_PREFIX
    first: list[RowPiece] = []
    rest: list[RowPiece] = []
    used = items = 0
    shown_from = len(leaf.frames) - leaf.opens
    for depth, frame in enumerate(leaf.frames):
        items += not frame.quote
        last = depth == len(leaf.frames) - 1
        new, old = (_QUOTE, _QUOTE) if frame.quote else _item(frame, items, task if last else "")
        if used + len(new.text) > width // 2:
            continue
        used += len(new.text)
        first.append(new if frame.quote or depth >= shown_from else old)
        rest.append(old)
    return Prefix(tuple(first), tuple(rest), used)


def gap_of(frames: Sequence[BlockFrame], before: Sequence[BlockFrame], width: int) -> tuple[RowPiece, ...]:
    """The prefix of the blank row between two leaves: what both stand in goes on."""
    shared = [a for a, b in zip(frames, before, strict=False) if a is b]
    return prefix_of(LeafBlock("paragraph", tuple(shared)), width).rest


def _item(frame: BlockFrame, depth: int, task: str) -> tuple[RowPiece, RowPiece]:
    marker = frame.marker if len(frame.marker) > 1 else _BULLETS[(depth - 1) % len(_BULLETS)]
    text = f"{' ' * frame.indent}{task or marker} "
    return RowPiece(text, "marker"), RowPiece(" " * len(text), own=False)
