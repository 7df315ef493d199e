"""The list of the sessions: draws only what is on the screen, asks for more near its end, and says what a key wished for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar, Literal

from textual.binding import Binding, BindingType
from textual.css.styles import RulesMap
from textual.message import Message
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions, Visual
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from tui.widgets.sessions.row import ROW_LINES, SessionRow, key_of, row_content, session_of

Wish = Literal["open", "new", "rename", "delete", "export", "search"]
_NEAR = 20  # rows before the end where more are asked for


class _RowVisual(Visual):
    """A row that is laid out only when it is drawn; its height is known without."""

    def __init__(self, row: SessionRow, current: str | None, now: float) -> None:
        self._given = row, current, now

    def render_strips(self, width: int, height: int | None, style: Style, options: RenderOptions) -> list[Strip]:
        row, current, now = self._given
        return row_content(row, current=current, now=now).render_strips(width, height, style, options)

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:
        return container_width

    def get_height(self, rules: RulesMap, width: int) -> int:
        return ROW_LINES


class SessionList(OptionList):
    """Rows of two lines. ``rows`` are what they show."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "wish('new')", "New", id="sessions.new", show=False),
        Binding("r,f2", "wish('rename')", "Rename", id="sessions.rename", show=False),
        Binding("d,delete", "wish('delete')", "Delete", id="sessions.delete", show=False),
        Binding("x", "wish('export')", "Export", id="sessions.export", show=False),
        Binding("slash", "wish('search')", "Search", id="sessions.search", show=False),
    ]

    class Wished(Message):
        """A person wants something done, with ``row`` where one is meant."""

        def __init__(self, wish: Wish, row: SessionRow | None) -> None:
            self.wish, self.row = wish, row
            super().__init__()

    class NearEnd(Message):
        """The end of the list is near."""

    def __init__(self) -> None:
        super().__init__(markup=False)
        self.rows: list[SessionRow] = []
        self._current: str | None = None

    @property
    def row(self) -> SessionRow | None:
        """The row under the cursor."""
        return None if self.highlighted is None or self.highlighted >= len(self.rows) else self.rows[self.highlighted]

    def show(self, rows: Sequence[SessionRow], current: str | None) -> None:
        """Show these rows. The cursor stays on its session, or at its place when that is gone."""
        now = time.time()
        held = len(self.rows)
        if 0 < held < len(rows) and current == self._current and list(rows[:held]) == self.rows:
            self.rows = list(rows)
            self.add_options([Option(_RowVisual(row, current, now)) for row in rows[held:]])
            return
        before, at, top = self.row, self.highlighted, self.scroll_offset.y
        self.rows, self._current = list(rows), current
        with self.prevent(OptionList.OptionHighlighted):
            self.set_options([Option(_RowVisual(row, current, now)) for row in rows])
            self.scroll_to(y=top, animate=False, immediate=True)
            self.highlighted = self._place(before, at)

    def _place(self, before: SessionRow | None, at: int | None) -> int | None:
        if not self.rows:
            return None
        if before is not None:
            keys = [key_of(row) for row in self.rows]
            if key_of(before) in keys:
                return keys.index(key_of(before))
        return min(at or 0, len(self.rows) - 1)

    def go_to(self, session: str | None) -> None:
        """Put the cursor on a session, or on the first row."""
        ids = [session_of(row) for row in self.rows]
        self.highlighted = (ids.index(session) if session in ids else 0) if ids else None

    def row_top(self) -> int:
        """The screen line of the highlighted row within the list, also where it is scrolled away (then outside the height)."""
        line = self._index_to_line.get(self.highlighted or 0, 0)
        return line - self.scroll_offset.y

    def action_wish(self, wish: Wish) -> None:
        self.post_message(self.Wished(wish, self.row))

    def action_cursor_up(self) -> None:
        if self.highlighted:
            super().action_cursor_up()
        else:
            self.post_message(self.Wished("search", None))

    def action_cursor_down(self) -> None:
        # The end is the end: to come out at the top again would be a surprise in a list of thousands.
        if self.highlighted is None or self.highlighted < len(self.rows) - 1:
            super().action_cursor_down()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(self.Wished("open", self.row))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self.rows and new_value + self.size.height >= ROW_LINES * (len(self.rows) - _NEAR):
            self.post_message(self.NearEnd())
