"""What the list above the prompt suggests: commands, files, or what was sent before. It follows the text before the cursor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget

from tui.prompt.history import Draft
from tui.prompt.suggest import KnownCommand, Suggestion, Trigger, commands, file_suggestion, remembered, trigger
from tui.widgets.folding import fit
from tui.widgets.prompt.area import PromptArea

if TYPE_CHECKING:
    from tui.prompt.file_search import FileIndex, Paths

_MOST = 30  # lines of the list
_SEARCHED = 2_000  # characters of each sent text
_CHOSEN = "bold $block-cursor-foreground on $block-cursor-background"
_NARROW = 60  # columns
_PAUSE = 0.04  # seconds without a key, then many files are searched: what is typed should be seen first


class Suggestions(Widget):
    """The list of one prompt, one line of it chosen. It never has the focus: the prompt moves the choice."""

    class Taken(Message):
        """A line was clicked; it is the chosen one now."""

    def __init__(self, area: PromptArea, draft: Draft, known: Sequence[KnownCommand], root: Path) -> None:
        """``area`` and ``draft`` are those of the prompt; ``root`` is the folder that ``@`` starts from."""
        super().__init__()
        self._area, self._draft, self._known, self._root = area, draft, known, root
        self._sent: list[tuple[str, str]] = []  # what is searched: a text, and its beginning in lower case
        self._timer: Timer | None = None
        self._shown_for: tuple[object, ...] | None = None
        self._closed_at: tuple[str, int, int] | None = None
        self._items: tuple[Suggestion, ...] = ()
        self._chosen = self._top = 0
        self._spare = 0  # the last row, where what the chosen one is about stands in full
        self._note = ""
        self.display = False

    @property
    def chosen(self) -> Suggestion | None:
        return self._items[self._chosen] if self._items else None

    def show(self, items: Sequence[Suggestion], note: str = "") -> None:
        """Show these, the first chosen; without any, the note; without that, nothing at all."""
        rows = self._rows
        self._items, self._note = tuple(items), note
        self._chosen = self._top = 0
        self.display = bool(items or note)
        self.refresh(layout=rows != self._rows)

    def move(self, by: int) -> None:
        """Choose another, around the ends."""
        if self._items:
            self._chosen = (self._chosen + by) % len(self._items)
            height = self._shown_rows
            self._top = max(min(self._top, self._chosen), self._chosen - height + 1)
            self.refresh()

    @property
    def _rows(self) -> int:
        return len(self._items) or (1 if self._note else 0)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        room = width - self._room_of_labels(width, self._items) - 4 if self._items else 0
        self._spare = int(width < _NARROW and any(i.is_command and cell_len(i.about) > room for i in self._items))
        return min(self._rows, max(3, min(8, viewport.height // 3)) - self._spare) + self._spare

    @property
    def _shown_rows(self) -> int:
        return max(1, self.size.height - self._spare)

    def _room_of_labels(self, width: int, items: Sequence[Suggestion]) -> int:
        room = width - 4 - min(12, max(cell_len(item.about) for item in items))
        return min(max(cell_len(item.label) for item in items), room)

    def render(self) -> Content:
        width = self.size.width
        if not self._items:
            return Content.styled(self._note, "$text-muted").truncate(width, ellipsis=True)
        shown = self._items[self._top : self._top + self._shown_rows]
        column = self._room_of_labels(width, shown)
        lines = [self._line(item, self._top + i == self._chosen, column) for i, item in enumerate(shown)]
        if self._spare and self.chosen is not None:
            lines.append(Content.styled(f"  {self.chosen.about}", "$text-muted").truncate(width, ellipsis=True))
        return Content("\n").join(lines)

    def _line(self, item: Suggestion, chosen: bool, column: int) -> Content:
        label = fit(item.label, column, keep_end=True) if item.is_path else item.label
        name = Content(label).truncate(column, ellipsis=True, pad=True)
        about = Content.styled(f"  {item.about}", "" if chosen else "$text-muted")
        line = Content.assemble("> " if chosen else "  ", name, about).truncate(self.size.width, ellipsis=True, pad=True)
        return line.stylize(_CHOSEN) if chosen else line

    def on_click(self, event: events.Click) -> None:
        event.stop()
        at = self._top + event.y
        if event.y < self._shown_rows and 0 <= at < len(self._items):
            self._chosen = at
            self.post_message(self.Taken())

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.move(1)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.move(-1)

    # --- keeping it up to date

    def follow(self) -> None:
        """Bring the list up to date with the text before the cursor."""
        if self._draft.mode == "search":
            if self._is_news("search", self._area.text):
                items = remembered(self._sent, self._area.text, _MOST)
                self.show(items, "" if items else "nothing that you sent has that")
            return
        # A command that is passed by in the history is not being typed.
        found = None if self._draft.is_recalled(self._area.text) else self._trigger()
        if found is None:
            self._closed_at = None
        if found is None or self._place(found) == self._closed_at:
            self.close()
        elif found.kind == "command":
            if self._is_news(found):
                self.show(commands(self._known, found.query))
        else:
            self._show_files(found)

    def follow_soon(self) -> None:
        """The same after a key: at once, or after a pause in the typing when it takes long."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        found = self._trigger()
        if found and found.kind == "file" and self.display and self._files.has_many:
            self._timer = self.set_timer(_PAUSE, self.follow)
        else:
            self.follow()

    def search(self, sent: Sequence[str]) -> None:
        """Suggest what was sent before, from now on until the search is over. The oldest comes first in ``sent``."""
        self._sent = [(text, text[:_SEARCHED].lower()) for text in sent]
        self.follow()

    def close(self) -> None:
        self._shown_for = None
        if self.display:
            self.show(())

    def dismiss(self) -> None:
        """Close the list for as long as this word is being typed."""
        found = self._trigger()
        self._closed_at = self._place(found) if found else None
        self.close()

    def reset(self) -> None:
        """Another text begins."""
        self._closed_at = None
        self.close()

    def _trigger(self) -> Trigger | None:
        if not self._area.selection.is_empty:
            return None
        found = trigger(self._area.before_cursor(), self._area.cursor_location[0])
        return None if found and found.kind == "command" and self._draft.mode == "edit" else found

    def _place(self, found: Trigger) -> tuple[str, int, int]:
        return found.kind, self._area.cursor_location[0], found.start

    def _is_news(self, *state: object) -> bool:
        """Whether the list has to be made anew: what was chosen in it stays chosen otherwise."""
        before, self._shown_for = self._shown_for, state
        return before != state

    # --- files

    @cached_property
    def _files(self) -> FileIndex:
        """What ``@`` can name: not part of the first paint."""
        from tui.prompt.file_search import FileIndex

        return FileIndex(self._root)

    def _show_files(self, found: Trigger) -> None:
        if self._files.begin():
            self.run_worker(self._scan, thread=True, group="files", exit_on_error=False)
        if self._is_news(found, self._files.scans, self._files.scanning):
            items = [file_suggestion(path) for path in self._files.finder.find(found.query, _MOST)]
            self.show(items, "looking for files ..." if self._files.scanning and not items else "")

    def _scan(self) -> None:
        paths = self._files.scan()
        self.app.call_from_thread(self._have, paths)

    def _have(self, paths: Paths) -> None:
        self._files.take(paths)
        self.follow()

    # --- taking one

    @property
    def untaken(self) -> Suggestion | None:
        """What is chosen, unless it has been typed in full: then Enter means the message."""
        chosen = self.chosen if self.display else None
        if chosen is None or self._draft.mode == "search":
            return chosen
        found = self._trigger()
        typed = found is not None and self._area.before_cursor()[found.start :] == chosen.value.rstrip()
        return None if typed else chosen

    def insert(self, item: Suggestion) -> str | None:
        """Put a suggestion in the place of what was typed of it. Returns the path of a file."""
        found = self._trigger()
        if found is None:
            return None
        row, column = self._area.cursor_location
        value = item.value.rstrip() if self._area.document.get_line(row)[column : column + 1] == " " else item.value
        result = self._area.replace(value, (row, found.start), (row, column), maintain_selection_offset=False)
        self._area.move_cursor(result.end_location)
        self.follow()
        return item.value.strip().removeprefix("@").strip('"') if found.kind == "file" else None
