"""Finding text in the messages: SQLite's full-text index where it is there, a plain search for the characters otherwise."""

from __future__ import annotations

import itertools
import re
import sqlite3

from agent.sessions.database import has_fts5, search_is_set_up
from agent.sessions.records import Hit, clean

# Noncharacters of Unicode: they mark the matches and stand in no text that means something.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_AROUND = 40  # characters kept on each side of a match when there is no index
_TERMS = 32
LONGEST = 1000  # characters of a person's query that are looked at; SQLite bounds its patterns too

_BY_INDEX = f"""
SELECT s.id, s.title, m.id, m.role, snippet(messages_search, -1, '{_OPEN}', '{_CLOSE}', '…', 14), m.created
FROM messages_search JOIN messages m ON m.id = messages_search.rowid JOIN sessions s ON s.number = m.session
WHERE messages_search MATCH ? ORDER BY messages_search.rank, m.id DESC LIMIT ?
"""
_BY_CHARACTERS = """
SELECT s.id, s.title, m.id, m.role, m.text, m.thinking, m.calls, m.created
FROM messages m JOIN sessions s ON s.number = m.session
WHERE m.text LIKE :like ESCAPE '\\' OR m.thinking LIKE :like ESCAPE '\\' OR m.calls LIKE :like ESCAPE '\\'
ORDER BY m.id DESC LIMIT :limit
"""


def search(connection: sqlite3.Connection, text: str, limit: int) -> list[Hit]:
    """The best ``limit`` places, or the newest where there is no index.

    Every word must occur, the last one may be the start of a word. What finds nothing that way is looked for as it is written,
    which also serves scripts that put no space between words.
    """
    text = clean(text[:LONGEST]).replace("\0", " ").strip()
    if not text or limit < 1:
        return []
    query = fts_query(text)
    if query and has_fts5(connection) and search_is_set_up(connection):
        found = [
            Hit(session, title, message, role, *_unmark(marked), created)
            for session, title, message, role, marked, created in connection.execute(_BY_INDEX, (query, limit))
        ]
        if found:
            return found
    return _by_characters(connection, text, limit)


def fts_query(text: str) -> str:
    """Words of a person as a query of FTS5: each is a quoted string, so that nothing in it is an operator."""
    terms = [term for term in text.split() if any(c.isalnum() for c in term)][:_TERMS]
    quoted = ['"' + term.replace('"', '""') + '"' for term in terms]
    return " ".join(quoted) + "*" if quoted else ""


def like_pattern(text: str) -> str:
    """A pattern for LIKE ... ESCAPE '\\' that finds ``text`` anywhere."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _by_characters(connection: sqlite3.Connection, text: str, limit: int) -> list[Hit]:
    hits = []
    rows = connection.execute(_BY_CHARACTERS, {"like": like_pattern(text), "limit": limit})
    for session, title, message, role, *places, created in rows:
        for place in places:
            # LIKE knows only ASCII's upper and lower case.
            start = _ascii_lower(place).find(_ascii_lower(text))
            if start >= 0:
                hits.append(Hit(session, title, message, role, *_cut(place, start, start + len(text)), created))
                break
    return hits


def _ascii_lower(text: str) -> str:
    return text.translate({code: code + 32 for code in range(65, 91)})


def _cut(text: str, start: int, end: int) -> tuple[str, tuple[tuple[int, int], ...]]:
    left, right = max(0, start - _AROUND), min(len(text), end + _AROUND)
    before = ("…" if left else "") + text[left:start]
    return _one_line(before + text[start:end] + text[end:right]) + ("…" if right < len(text) else ""), (
        (len(before), len(before) + end - start),
    )


def _one_line(text: str) -> str:
    return text.translate({0x0A: " ", 0x0D: " ", 0x09: " "})


def _unmark(marked: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The snippet without its marks, and where they stood."""
    pieces = re.split(f"[{_OPEN}{_CLOSE}]", _one_line(marked))  # every second one matched
    ends = list(itertools.accumulate(map(len, pieces)))
    return "".join(pieces), tuple(zip(ends[::2], ends[1::2], strict=False))
