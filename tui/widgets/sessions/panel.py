"""All conversations that were kept: to find one, to go on with it, to name, export or delete it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input, Static

from agent.errors import SprigError
from agent.sessions.records import Hit
from agent.sessions.store import Store
from agent.text import display
from tui.export.files import ExportFormat, export
from tui.widgets.sessions.ask import SessionAnswered, SessionAsk, SessionTitle
from tui.widgets.sessions.keys import SessionKeys
from tui.widgets.sessions.list import SessionList, Wish
from tui.widgets.sessions.row import SessionRow, counted, session_of, title_of

_PAGE = 100  # sessions that are read at a time
_HITS = 50
_DEBOUNCE = 0.15  # seconds without a key before a search
_SHORTEST = 2  # letters that are worth looking through all messages for
_KINDS = (("m", "Markdown"), ("j", "JSON"), ("s", "SVG"))
_SUFFIX: dict[str, ExportFormat] = {"m": "md", "j": "json", "s": "svg"}

_NONE = "No sessions yet.\nWhat you talk about is kept here."
_NOTHING = "Nothing found for “{}”.\nIt looks for whole words; the last may be a beginning."

T = TypeVar("T")


class SessionsPanel(Widget):
    """A search, a list, and what can be done. Reads and writes the store in threads; the loop never waits for a disk."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", id="sessions.close", show=False),
        Binding("down", "to_list", "To the list", show=False),
    ]

    class OpenWanted(Message):
        """A person wants to open a session, at a message if the search found one."""

        def __init__(self, session_id: str, message_id: int | None) -> None:
            self.session_id, self.message_id = session_id, message_id
            super().__init__()

    class NewWanted(Message):
        """A person wants to begin a new session."""

    class Deleted(Message):
        """The current session is gone."""

        def __init__(self, session_id: str) -> None:
            self.session_id = session_id
            super().__init__()

    class Renamed(Message):
        """A session has another title."""

        def __init__(self, session_id: str, title: str) -> None:
            self.session_id, self.title = session_id, title
            super().__init__()

    class CloseWanted(Message):
        """A person wants to close the panel."""

    def __init__(
        self, store: Store, *, current: str | None = None, folder: Path | None = None, search: str = "", id: str | None = None
    ) -> None:
        """
        Args:
            store: of the sessions.
            current: id of the session that is open.
            folder: where exports go; None, the current folder at that moment.
            search: what is searched for at first.
        """
        super().__init__(id=id)
        self._store, self._current, self._folder, self._first = store, current, folder, search
        self._limit, self._complete = _PAGE, False
        self._wanted = self._reading = self._focus_wanted = False
        self._shown: str | None = None  # the query that the list answers; None while nothing was read
        self._timer: Timer | None = None
        self._about: tuple[Wish, SessionRow] | None = None  # what a question is about

    def compose(self) -> ComposeResult:
        yield Input(self._first, placeholder="Search all sessions", compact=True, id="sessions-search")
        yield SessionList()
        yield Static("", markup=False, id="sessions-empty")
        yield Static("", markup=False, id="sessions-notice")
        yield SessionKeys()

    def on_mount(self) -> None:
        self._list.display = False
        self.notice("")
        self._read()

    @property
    def _list(self) -> SessionList:
        return self.query_one(SessionList)

    @property
    def _query(self) -> str:
        return self.query_one("#sessions-search", Input).value.strip()

    def refresh_list(self, current: str | None) -> None:
        """Read the list again. ``current`` is the id of the session that is open now."""
        self._current = current
        self._read()

    def focus_list(self) -> None:
        """Give the keyboard to the list as soon as it is there; to the search where it is empty."""
        self._focus_wanted = self._shown is None
        if not self._focus_wanted:
            target: Widget = self._list if self._list.rows else self.query_one("#sessions-search", Input)
            target.focus()

    def notice(self, line: str, *, error: bool = False) -> None:
        """Show one line below the list, until something else is done."""
        notice = self.query_one("#sessions-notice", Static)
        notice.update(("✗ " if error else "") + display(line))
        notice.set_class(error, "-error")
        notice.display = bool(line)

    # Reading: one query at a time, and the last that was asked for.

    def _read(self) -> None:
        self._wanted = True
        if not self._reading and self.is_attached:
            self._reading = True
            self.run_worker(self._read_all(), group="sessions")

    async def _read_all(self) -> None:
        try:
            while self._wanted:
                self._wanted = False
                query, limit = self._query, self._limit
                try:
                    rows, complete = await asyncio.to_thread(_rows, self._store, query, limit)
                except SprigError as e:
                    self.notice(str(e), error=True)
                    continue
                if not self._wanted:
                    self._show(rows, query, complete)
        finally:
            self._reading = False

    def _show(self, rows: list[SessionRow], query: str, complete: bool) -> None:
        self._complete = complete
        had_focus = self._list.has_focus
        self._list.show(rows, self._current)
        self._list.display = bool(rows)
        empty = self.query_one("#sessions-empty", Static)
        empty.display = not rows
        empty.update(_NOTHING.format(display(query)) if query else _NONE)
        if query != self._shown:
            self._shown = query
            self._list.go_to(None if query else self._current)
        if self._focus_wanted or (had_focus and not rows):
            self.focus_list()

    @on(Input.Changed, "#sessions-search")
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._limit = _PAGE
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(_DEBOUNCE, self._search)

    def _search(self) -> None:
        self.notice("")
        self._read()

    @on(Input.Submitted, "#sessions-search")
    def action_to_list(self) -> None:
        if self._list.rows:
            self._list.focus()

    @on(SessionList.NearEnd)
    def _more(self) -> None:
        if not self._complete and not self._reading:
            self._limit += _PAGE
            self._read()

    # Doing.

    @on(SessionKeys.KeyClicked)
    async def _clicked(self, event: SessionKeys.KeyClicked) -> None:
        event.stop()
        if event.id == "sessions.close":
            self.action_close()
        else:
            self._list.action_wish(cast("Wish", event.id.removeprefix("sessions.")))

    @on(SessionList.Wished)
    def _wished(self, event: SessionList.Wished) -> None:
        event.stop()
        self.notice("")
        row = event.row
        if event.wish == "search":
            self.query_one("#sessions-search", Input).focus()
        elif event.wish == "new":
            self.post_message(self.NewWanted())
        elif row is None:
            return
        elif event.wish == "open":
            self.post_message(self.OpenWanted(session_of(row), row.message if isinstance(row, Hit) else None))
        else:
            self._about = event.wish, row
            self._do(self._ask(event.wish, row))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        self.run_worker(work, group="sessions-do")

    async def _store_says(self, work: Callable[[], T]) -> T | None:
        """What the store, or the disk, answers; None, and a line in the panel, where it cannot be done."""
        try:
            return await asyncio.to_thread(work)
        except (SprigError, OSError) as e:
            self.notice(str(e), error=True)
            self._read()
            return None

    async def _ask(self, wish: Wish, row: SessionRow) -> None:
        widget: SessionAsk | SessionTitle
        if wish == "rename":
            widget = SessionTitle(row.title)
        elif wish == "export":
            widget = SessionAsk(f"Export “{_short(row, 16)}” as", _KINDS)
        else:
            # How many messages there are is asked now: the list may be older, and a hit does not know.
            info = await self._store_says(lambda: self._store.open(session_of(row)).info)
            if info is None:
                return
            what = f" and its {counted(info.messages)}" if info.messages else ""
            widget = SessionAsk(f"Delete “{_short(row)}”{what}?", (("y", "yes"), ("n", "no")), grave=True)
        await self._take_away()
        await self.mount(widget)
        self._list.scroll_to_highlight()
        widget.focus()
        self.call_after_refresh(self._place, widget)

    def _place(self, widget: Widget) -> None:
        """Lay a question over the row that it is about, within the list."""
        area = self._list.region
        room = max(0, area.height - widget.outer_size.height)
        top = area.y - self.region.y + min(max(0, self._list.row_top()), room)
        widget.styles.offset = (0, top)

    def on_resize(self) -> None:
        for widget in self.query("SessionAsk, SessionTitle"):
            self.call_after_refresh(self._place, widget)

    async def _take_away(self) -> None:
        had_focus = False
        for widget in self.query("SessionAsk, SessionTitle"):
            had_focus = had_focus or widget.has_focus
            await widget.remove()
        if had_focus:
            self.focus_list()

    @on(SessionAnswered)
    async def _answered(self, event: SessionAnswered) -> None:
        event.stop()
        await self._take_away()
        match self._about, event.answer:
            case ("delete", row), "y":
                self._do(self._delete(row))
            case ("export", row), kind if kind in _SUFFIX:
                self._do(self._export(row, _SUFFIX[kind]))
            case ("rename", row), title if title and title != row.title:
                self._do(self._rename(row, title))

    async def _delete(self, row: SessionRow) -> None:
        id = session_of(row)
        if await self._store_says(lambda: _done(self._store.delete, id)) is None:
            return
        self.notice(f"Deleted “{title_of(row)}”.")
        self._read()
        if id == self._current:
            self.post_message(self.Deleted(id))

    async def _rename(self, row: SessionRow, title: str) -> None:
        id = session_of(row)
        if await self._store_says(lambda: _done(self._store.rename, id, title)) is not None:
            self._read()
            self.post_message(self.Renamed(id, title))

    async def _export(self, row: SessionRow, kind: ExportFormat) -> None:
        self.notice("Exporting…")
        folder = Path() if self._folder is None else self._folder
        path = await self._store_says(lambda: export(self._store.open(session_of(row)), kind, folder).absolute())
        if path is not None:
            self.notice(f"Saved {path.name} in {path.parent}")

    def action_close(self) -> None:
        self.post_message(self.CloseWanted())


def _rows(store: Store, query: str, limit: int) -> tuple[list[SessionRow], bool]:
    """Runs in a thread: what the list shows for a query, and whether that is all."""
    sessions = store.sessions(limit, query or None)
    rows: list[SessionRow] = list(sessions)
    if len(query) >= _SHORTEST or not query.isascii():
        rows += store.search(query, _HITS)
    return rows, len(sessions) < limit


def _done(work: Callable[..., None], *given: str) -> bool:
    work(*given)
    return True


def _short(row: SessionRow, limit: int = 24) -> str:
    title = title_of(row)
    return title if len(title) <= limit else title[: limit - 1] + "…"
