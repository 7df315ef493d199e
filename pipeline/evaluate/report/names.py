"""What files are called in a plot, where room is short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def short_names(names: Sequence[str]) -> list[str]:
    """Each file's own part of its name: without its ending, and without the beginning that all have, as far as its last hyphen.

    Files of one name get a number.
    """
    short = [name.removesuffix(".gguf") for name in names]
    if len(set(short)) > 1:
        first, last = min(short), max(short)  # what these two begin with, all begin with
        common = next((i for i, letter in enumerate(first) if letter != last[i]), len(first))
        begun = first.rfind("-", 0, common) + 1
        if all(len(name) > begun for name in short):
            short = [name[begun:] for name in short]
    seen: Counter[str] = Counter()
    unique = []
    for name in short:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique
