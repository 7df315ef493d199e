"""How a session, or a place that a search found, looks in the list: two lines each, that the list cuts at its width."""

from __future__ import annotations

from datetime import date

from textual.content import Content

from agent.sessions.records import Hit, SessionInfo
from agent.text import display

SessionRow = SessionInfo | Hit
ROW_LINES = 2

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WHO = {"user": "you", "assistant": "model", "tool": "tool", "system": "system"}
_LONGEST = 300  # characters of a title that are laid out
_BEFORE = 16  # characters that may stand before a match


def session_of(row: SessionRow) -> str:
    """The id of the session that a row is about."""
    return row.id if isinstance(row, SessionInfo) else row.session


def key_of(row: SessionRow) -> tuple[str, int | None]:
    """What a row is known by when the list is read again."""
    return session_of(row), row.message if isinstance(row, Hit) else None


def title_of(row: SessionRow) -> str:
    """The title, safe to show and never empty."""
    return display(" ".join(row.title[:_LONGEST].split())) or "Untitled"


def row_content(row: SessionRow, *, current: str | None, now: float) -> Content:
    """Two lines: the title, and below it when it was used last and how long it is, or the words that were found."""
    mark = ("● ", "bold $accent") if session_of(row) == current else ("  ", "")
    first = Content.assemble(mark, (title_of(row), "bold"))
    if isinstance(row, Hit):
        return Content("\n").join([first, Content("  ") + _found(row)])
    here = "open now" if row.id == current else ago(row.updated, now)
    about = " · ".join(part for part in (here, counted(row.messages)) if part)
    return Content("\n").join([first, Content.assemble("  ", (about, "dim"))])


def counted(messages: int) -> str:
    return "1 message" if messages == 1 else f"{messages:,} messages" if messages else "empty"


def ago(then: float, now: float) -> str:
    """A moment as seen from another: "now", "3 min", "2 h", "yesterday", "Tue", "12 Mar", "12 Mar 2024"; times of the local zone.

    Args:
        then, now: seconds since 1970. A clock that was set back makes moments of the future: they get their date.
    """
    try:
        day, today = date.fromtimestamp(then), date.fromtimestamp(now)
    except (OverflowError, ValueError, OSError):
        return ""
    seconds, days = now - then, (today - day).days
    if abs(seconds) < 60:
        return "now"
    if 0 < seconds < 3600:
        return f"{seconds // 60:.0f} min"
    if days == 0:
        return f"{seconds // 3600:.0f} h" if seconds > 0 else "today"
    if 0 < days < 7:
        return "yesterday" if days == 1 else _DAYS[day.weekday()]
    written = f"{day.day} {_MONTHS[day.month - 1]}"
    return written if day.year == today.year else f"{written} {day.year}"


def _found(hit: Hit) -> Content:
    """Who said it and the words around the match; the match stands near the beginning, so that a narrow list shows it."""
    start = _beginning(hit)
    pieces: list[tuple[str, str]] = [(f"{_WHO.get(hit.role, 'tool')}: ", "dim")]
    if start:
        pieces.append(("…", ""))
    at = start
    for begin, end in hit.marks:
        # A sign can be longer than the character that it stands for: each piece is made safe by itself.
        pieces += [(display(hit.snippet[at:begin]), ""), (display(hit.snippet[begin:end]), "bold underline $text-accent")]
        at = end
    pieces.append((display(hit.snippet[at:]), ""))
    return Content.assemble(*(piece for piece in pieces if piece[0]))


def _beginning(hit: Hit) -> int:
    """Where the snippet is to begin: at a word, so that the match is in sight."""
    first = hit.marks[0][0] if hit.marks else 0
    if first <= _BEFORE:
        return 0
    space = hit.snippet.find(" ", first - _BEFORE, first)
    return space + 1 if space >= 0 else first - _BEFORE
