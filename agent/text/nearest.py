"""What a person probably meant by a word that is not known."""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 200  # characters of a word that are compared: each costs time


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one; None when none is like it."""
    found = all_near(word, known, 1)
    return found[0] if found else None


def all_near(word: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known words that are like this one, whatever their case, the nearest first."""
    import difflib  # only a mistake needs it

    by_case = {one.lower(): one for one in known}
    return [by_case[one] for one in difflib.get_close_matches(word[:_MOST].lower(), by_case, most, 0.6)]
