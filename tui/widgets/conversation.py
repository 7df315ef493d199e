"""The conversation: a window over its messages. Those far from what is looked at are not on the screen's tree at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.containers import VerticalScroll
from textual.geometry import Size
from textual.layout import DockArrangeResult
from textual.widget import Widget

from tui.talk.entries import Entry
from tui.widgets.messages.entry import EntryView

WINDOW = 40  # messages on the tree when nobody scrolls; twice as many at most
STEP = 20  # that come when the end of the window is reached
_NEAR = 4  # lines from the end of the window at which more are fetched


class Conversation(VerticalScroll, can_focus=False):
    """Messages from a session, then what is being said now (``live``)."""

    def __init__(self, *, fold_after: int = 6) -> None:
        super().__init__()
        self.fold_after = fold_after
        self.entries: list[Entry] = []
        self._low = self._high = 0  # the window: entries[low:high] have widgets
        self._live: list[Widget] = []
        self._moving = False

    async def show(self, entries: Sequence[Entry], at: int | None = None) -> None:
        """Another conversation, looking at message ``at`` or at the end."""
        self._moving = True
        try:
            self.entries, self._live = list(entries), []
            place = next((i for i, e in enumerate(entries) if e.id == at), None) if at is not None else None
            self._high = len(entries) if place is None else min(len(entries), place + WINDOW // 2)
            self._low = max(0, self._high - WINDOW)
            async with self.batch():
                await self.remove_children()
                await self.mount_all(self._make(e) for e in self.entries[self._low : self._high])
        finally:
            self._moving = False
        if place is not None:
            self.anchor(False)
            view = self.view(at)
            if view is not None:
                view.focus()
                self.call_after_refresh(self.scroll_to_widget, view, animate=False, top=True)
        else:
            self.anchor()

    async def add(self, *widgets: Widget) -> None:
        """Something new at the end."""
        if self._high < len(self.entries):
            await self.show(self.entries)
        self._live += widgets
        await self.mount_all(widgets)

    async def drop(self, view: Widget) -> None:
        """Take something live away again."""
        self._live = [w for w in self._live if w is not view]
        await view.remove()

    async def settle(self, entries: Sequence[Entry]) -> None:
        """What was live is kept now: ``entries`` are the whole conversation."""
        known = [e.id for e in self.entries]
        views = [w for w in self._live if isinstance(w, EntryView)]
        new = list(entries[len(known) :])
        fits = [v.mine for v in views] == [e.mine for e in new]
        if not fits or [e.id for e in entries[: len(known)]] != known:
            from tui.widgets.messages.notice import Notice

            notices = [Notice(w.text, kind=w.kind, offers=w.offers) for w in self._live if isinstance(w, Notice)]
            await self.show(entries)
            await self.add(*notices)
            return
        for view, entry in zip(views, new, strict=True):
            view.settle(entry)
        self.entries, self._high = list(entries), len(entries)
        self._live = []
        await self._trim_above()

    @property
    def following(self) -> bool:
        """Whether it stays at the end as more is said."""
        return self._anchored and not self._anchor_released

    def view(self, id: int | None) -> EntryView | None:
        """The widget of a message, if it is on the tree."""
        return next((w for w in self.views() if w.entry is not None and w.entry.id == id), None)

    def views(self) -> Iterable[EntryView]:
        return (w for w in self.children if isinstance(w, EntryView))

    def last(self) -> EntryView | None:
        return next(reversed(list(self.views())), None)

    def _make(self, entry: Entry) -> EntryView:
        if entry.mine:
            from tui.widgets.messages.user import UserMessage

            return UserMessage(entry.stored.message.text, entry)
        from tui.widgets.messages.answer import AnswerMessage

        return AnswerMessage(entry, fold_after=self.fold_after)

    def arrange(self, size: Size, optimal: bool = False) -> DockArrangeResult:
        """The bar is painted with every layout: held at the end, Textual moves its place without painting it."""
        if self.following and self.show_vertical_scrollbar:
            self.call_next(self.vertical_scrollbar.refresh)  # after the layout: it asks where it is
        return super().arrange(size, optimal)

    # The window.

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self._moving:
            return
        if new_value < old_value and new_value <= _NEAR and self._low > 0:
            self._moving = True
            self.call_next(self._earlier)
        elif new_value > old_value and new_value >= self.max_scroll_y - _NEAR and self._high < len(self.entries):
            self._moving = True
            self.call_next(self._later)

    async def _earlier(self) -> None:
        try:
            low = max(0, self._low - STEP)
            first = next(iter(self.children), None)
            before = first.virtual_region.y if first is not None else 0
            async with self.batch():
                await self.mount_all((self._make(e) for e in self.entries[low : self._low]), before=0)
                self._low = low
                if not self._live and self._high - self._low > 2 * WINDOW:
                    gone = self._high - self._low - 2 * WINDOW
                    await self.remove_children(list(self.children)[-gone:])
                    self._high -= gone
            self._keep_at(first, before)
        finally:
            self._moving = False

    async def _later(self) -> None:
        try:
            high = min(len(self.entries), self._high + STEP)
            async with self.batch():
                await self.mount_all(self._make(e) for e in self.entries[self._high : high])
                self._high = high
            await self._trim_above()
        finally:
            self._moving = False

    async def _trim_above(self) -> None:
        """Take messages off the tree that have scrolled far away."""
        gone = self._high - self._low - 2 * WINDOW
        if gone <= 0:
            return
        children = list(self.children)
        stays = children[gone] if gone < len(children) else None
        before = stays.virtual_region.y if stays is not None else 0
        async with self.batch():
            await self.remove_children(children[:gone])
            self._low += gone
        self._keep_at(stays, before)

    def _keep_at(self, widget: Widget | None, before: int) -> None:
        """What was looked at stays where it is on the screen, although lines came or went above it."""
        if widget is None or self.following:
            return

        def move() -> None:
            if widget.is_mounted:
                self.scroll_to(y=self.scroll_y + widget.virtual_region.y - before, animate=False, immediate=True)

        self.call_after_refresh(move)
