"""What a person probably meant by a word that is not known."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one; None when none is like it."""
    import difflib  # only a mistake needs it

    found = difflib.get_close_matches(word.lower(), list(known), 1, 0.6)
    return found[0] if found else None
