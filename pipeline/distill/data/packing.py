"""Pieces of text become sequences of one width: long ones are cut, short ones share a sequence.

They are packed and not padded: what a padded sequence computes for nothing is time. A piece that stands behind another in a
sequence sees it; so does the teacher, and so their divergence stays what it is. No first token of a piece counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.distill.data.lesson import TrainingSequence

_OPEN = 64  # sequences that still take pieces; the search for room ends there


@dataclass(frozen=True, slots=True)
class LessonPiece:
    """Token ids of one text or conversation, and which of them count."""

    ids: Sequence[int]
    scored: Sequence[bool]


def windows(piece: LessonPiece, width: int, bos: int | None) -> Iterator[LessonPiece]:
    """A piece in parts of at most ``width`` tokens; those behind the first begin with BOS where the first does."""
    front = [bos] if bos is not None and piece.ids[:1] == [bos] else []
    start, room = 0, width
    while start < len(piece.ids):
        head = front if start else []
        room = width - len(head)
        ids, scored = [*head, *piece.ids[start : start + room]], [*(False for _ in head), *piece.scored[start : start + room]]
        yield LessonPiece(ids, [False, *scored[1:]])
        start += room


def packed(pieces: Iterable[LessonPiece], width: int) -> tuple[TrainingSequence, ...]:
    """Sequences of at most ``width`` tokens: each piece, in turn, goes into the first that has room. Pieces in which nothing
    counts are left out."""
    closed: list[LessonPiece] = []
    open_: list[LessonPiece] = []
    for piece in pieces:
        if not any(piece.scored):
            continue
        place = next((i for i, one in enumerate(open_) if len(one.ids) + len(piece.ids) <= width), None)
        if place is None:
            open_.append(piece)
            if len(open_) > _OPEN:
                closed.append(open_.pop(0))
        else:
            one = open_[place]
            open_[place] = LessonPiece([*one.ids, *piece.ids], [*one.scored, *piece.scored])
    return tuple(TrainingSequence(tuple(one.ids), tuple(one.scored)) for one in (*closed, *open_))
