"""Words and emoji whose letters are joined by invisible characters, while they stream in and where they are broken."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from tui.markdown.document import Document
from tui.markdown.wrap import wrap

FAMILY = "👨\u200d👩\u200d👧\u200d👦"
TEXTS = (
    f"a {FAMILY} b",
    "می\u200cخواهم",
    "ශ්\u200dරී ලංකා",
    "क्\u200dष",
    "❤\ufe0f 1\ufe0f\u20e3",
    "in \u2067שלום\u2069 and",
    "12\r\n3 4",
)


def rows(document: Document) -> list[str]:
    document.resize(60)
    return ["".join(piece.text for piece in document.row(y)[0].pieces) for y in range(document.height)]


@pytest.mark.parametrize("text", TEXTS)
def test_a_border_between_two_pieces_changes_nothing(text: str) -> None:
    whole = Document()
    whole.append(text)
    seen = rows(whole)  # nothing of it waits unseen
    whole.finish()
    assert rows(whole) == seen
    for at in range(len(text)):
        document = Document()
        document.append(text[:at])
        document.append(text[at:])
        document.finish()
        assert rows(document) == seen
    assert "U+" not in "".join(seen)


@pytest.mark.parametrize("text", [*TEXTS[:-1], FAMILY * 9, f"{'🏳️' * 3}\u200d🌈 " * 5, "ශ්\u200dරී" * 20])
@pytest.mark.parametrize("width", [4, 7, 20])
def test_what_is_joined_is_one_sign_and_is_not_broken(text: str, width: int) -> None:
    pieces = [text[start:end] for start, end in wrap(text, width)]
    assert all(cell_len(piece) <= width for piece in pieces)
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")
    assert not [piece for piece in pieces if piece[0] == "\u200d" or piece[-1] == "\u200d"]
