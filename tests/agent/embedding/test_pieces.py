"""Pieces of a text: small enough for a model, at paragraphs where that is near, and nothing of the text is lost."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.embedding.pieces import MAX_PIECES, MOST, OVERLAP, Piece, cut
from tests.fixtures.generated import runs


def test_a_short_text_is_one_piece_and_a_blank_one_none() -> None:
    assert cut("one\n\ntwo\n") == [Piece(1, 3, "one\n\ntwo")]
    assert cut(" \n\n\t") == cut("") == []


def test_pieces_end_at_paragraphs_and_overlap_a_little() -> None:
    paragraph = "\n".join(f"line {i} of a paragraph that goes on" for i in range(8))
    text = "\n\n".join([paragraph] * 6)
    pieces = cut(text)
    lines = text.splitlines()
    assert all(piece.text == "\n".join(lines[piece.first - 1 : piece.last]) for piece in pieces)
    assert all(piece.text.endswith("line 7 of a paragraph that goes on") for piece in pieces)
    assert all(a.last - 4 <= b.first <= a.last + 2 for a, b in itertools.pairwise(pieces))


def test_a_line_without_end_is_cut_between_words_and_characters() -> None:
    assert all(piece.text.split() and set(piece.text.split()) == {"word"} for piece in cut("word " * 1000))
    assert "".join(piece.text for piece in cut("語" * 5000)) == "語" * 5000
    assert len(cut("x" * (MOST * MAX_PIECES * 2))) == MAX_PIECES


@settings(max_examples=runs(200))
@given(st.lists(st.text(max_size=20) | st.just("") | st.integers(0, 3000).map(lambda n: "ab c" * n), max_size=30).map("\n".join))
def test_every_line_is_in_a_piece(text: str) -> None:
    pieces = cut(text)
    assert all(len(piece.text.encode("utf-8", "replace")) <= MOST for piece in pieces)
    covered = {n for piece in pieces for n in range(piece.first, piece.last + 1)}
    assert {n for n, line in enumerate(text.splitlines(), 1) if line.strip()} <= covered
    starts = [piece.first for piece in pieces]
    assert starts == sorted(starts)
    assert sum(len(piece.text.encode()) for piece in pieces) <= len(text.encode()) + len(pieces) * (OVERLAP + 1)
