"""What changed in a text, as a unified diff for a person: bounded in time and size whatever the texts are."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

MAX_DIFF = 100_000  # characters
_MAX_LINE = 2_000  # characters of one line that are shown
_COMPARED = 2_000  # differing lines that are matched with one another; more are shown as taken out and put in
_CONTEXT = 3


def unified(before: str, after: str, path: str, *, whole: bool = False) -> tuple[str, int]:
    """The diff, and how many of its lines were left out at its end for want of room. Empty when nothing changed.

    Lines end at ``\\n`` alone. Lines of more than 2,000 characters are cut, with a word about it; of a ``whole`` diff nothing is
    left out or cut.
    Source: POSIX.1-2017, diff, "Diff -u output format"; the words about a missing newline are GNU diff's.
    """
    if before == after:
        return "", 0
    old, new = _lines(before), _lines(after)
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    start = max(0, head - _CONTEXT)
    old, new = old[start : len(old) - max(0, tail - _CONTEXT)], new[start : len(new) - max(0, tail - _CONTEXT)]
    name = path.replace("\n", "\u240a")
    lines = [f"--- a/{name}\n", f"+++ b/{name}\n", *_hunks(old, new, start, None if whole else _MAX_LINE)]
    return ("".join(lines), 0) if whole else _bounded(lines)


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    ended = [line + "\n" for line in lines[:-1]]
    return [*ended, lines[-1]] if lines[-1] else ended


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many lines both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _hunks(old: Sequence[str], new: Sequence[str], start: int, longest: int | None) -> Iterator[str]:
    """Hunks of two texts that both begin ``start`` lines below the top."""
    for group in _groups(old, new):
        (_, i1, _, j1, _), (_, _, i2, _, j2) = group[0], group[-1]
        yield f"@@ -{_range(start + i1, i2 - i1)} +{_range(start + j1, j2 - j1)} @@\n"
        for kind, a1, a2, b1, b2 in group:
            if kind == "equal":
                yield from (_line(" ", line, longest) for line in old[a1:a2])
                continue
            yield from (_line("-", line, longest) for line in old[a1:a2])
            yield from (_line("+", line, longest) for line in new[b1:b2])


def _groups(old: Sequence[str], new: Sequence[str]) -> Iterator[Sequence[tuple[str, int, int, int, int]]]:
    if max(len(old), len(new)) <= _COMPARED:
        yield from difflib.SequenceMatcher(None, old, new).get_grouped_opcodes(_CONTEXT)
        return
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    n, m = len(old), len(new)
    yield [("equal", 0, head, 0, head), ("replace", head, n - tail, head, m - tail), ("equal", n - tail, n, m - tail, m)]


def _range(start: int, length: int) -> str:
    if length == 1:
        return str(start + 1)
    return f"{start + 1 if length else start},{length}"


def _line(mark: str, line: str, longest: int | None) -> str:
    text, end = (line[:-1], "\n") if line.endswith("\n") else (line, "\n\\ No newline at end of file\n")
    if longest is not None and len(text) > longest:
        text = f"{text[:longest]}\u2026 [{len(text) - longest:,} more characters]"
    return mark + text + end


def _bounded(lines: Sequence[str]) -> tuple[str, int]:
    room, kept = MAX_DIFF, 0
    for line in lines:
        room -= len(line)
        if room < 0:
            break
        kept += 1
    return "".join(lines[:kept]), len(lines) - kept
