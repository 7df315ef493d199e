"""A unified diff, read: lines with their kind and numbers. Source: POSIX.1-2017, diff, "Diff -u output format"."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

LineKind = Literal["same", "added", "removed", "gap", "note"]

_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@(.*)")


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One line of a diff.

    Attributes:
        kind: same, added or removed; gap, lines between the hunks that are not in the diff; note, a word about the line before.
        text: without its mark and its newline; of a gap, what the hunk's head says of the place.
        number: in the new file, or in the old one for a removed line; from 1; None for gap and note.
        changed: the stretch of ``text`` that differs from the line that it replaces or is replaced by.
    """

    kind: LineKind
    text: str
    number: int | None = None
    changed: tuple[int, int] | None = None


def parse(diff: str) -> tuple[DiffLine, ...]:
    """The lines of a unified diff of one file, without its heads. Never raises: what is no diff has no lines."""
    lines = _marked(diff)
    i = 0
    while i < len(lines):
        removed = _run(lines, i, "removed")
        added = _run(lines, i + removed, "added")
        if removed == added > 0:
            _pair(lines, i, removed)
        i += max(1, removed + added)
    return tuple(lines)


def count(lines: tuple[DiffLine, ...]) -> tuple[int, int]:
    """How many lines were added and removed."""
    kinds = [line.kind for line in lines]
    return kinds.count("added"), kinds.count("removed")


def _marked(diff: str) -> list[DiffLine]:
    # The counts in a hunk's head say where it ends, so that a removed line "-- x" is not taken for the head of a file.
    found: list[DiffLine] = []
    old = new = old_left = new_left = 0
    for line in diff.removesuffix("\n").split("\n"):
        mark, text = line[:1], line[1:]
        if old_left > 0 or new_left > 0:
            if mark == "+" and new_left > 0:
                found.append(DiffLine("added", text, new))
                new, new_left = new + 1, new_left - 1
                continue
            if mark == "-" and old_left > 0:
                found.append(DiffLine("removed", text, old))
                old, old_left = old + 1, old_left - 1
                continue
            if mark in (" ", "") and old_left > 0 and new_left > 0:
                found.append(DiffLine("same", text, new))
                old, new, old_left, new_left = old + 1, new + 1, old_left - 1, new_left - 1
                continue
        if mark == "\\" and found:
            found.append(DiffLine("note", text.strip()))
        elif head := _HUNK.fullmatch(line):
            old, new = int(head[1]), int(head[3])
            old_left, new_left = int(head[2] or 1), int(head[4] or 1)
            if found or max(old, new) > 1:
                found.append(DiffLine("gap", head[5].strip()))
    return found


def _run(lines: list[DiffLine], start: int, kind: LineKind) -> int:
    end = start
    while end < len(lines) and lines[end].kind == kind:
        end += 1
    return end - start


def _pair(lines: list[DiffLine], start: int, length: int) -> None:
    for i in range(start, start + length):
        before, after = lines[i], lines[i + length]
        head, tail = _common(before.text, after.text)
        # Lines that share little are other lines: to mark most of them would say nothing.
        if 2 * (head + tail) >= max(len(before.text), len(after.text)):
            lines[i] = replace(before, changed=(head, len(before.text) - tail))
            lines[i + length] = replace(after, changed=(head, len(after.text) - tail))


def _common(one: str, other: str) -> tuple[int, int]:
    """How many characters two texts share at their beginning and, beyond those, at their end."""
    shorter = min(len(one), len(other))
    head = next((i for i in range(shorter) if one[i] != other[i]), shorter)
    room = shorter - head
    tail = next((i for i in range(room) if one[-1 - i] != other[-1 - i]), room)
    return head, tail
