"""The list above the prompt: commands, files, or what was sent before."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.widget import Widget

from tui.prompt.suggest import Suggestion

_CHOSEN = "bold $block-cursor-foreground on $block-cursor-background"


class Completion(Widget):
    """Shows suggestions, one of them chosen. It never has the focus: the prompt moves the choice."""

    class Taken(Message):
        """A line was clicked; it is the chosen one now."""

    def __init__(self) -> None:
        super().__init__()
        self._items: tuple[Suggestion, ...] = ()
        self._chosen = 0
        self._top = 0
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

    def close(self) -> None:
        if self.display:
            self.show(())

    def move(self, by: int) -> None:
        """Choose another, around the ends."""
        if self._items:
            self._chosen = (self._chosen + by) % len(self._items)
            height = max(1, self.size.height)
            self._top = max(min(self._top, self._chosen), self._chosen - height + 1)
            self.refresh()

    @property
    def _rows(self) -> int:
        return len(self._items) or (1 if self._note else 0)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return min(self._rows, max(3, min(8, viewport.height // 3)))

    def render(self) -> Content:
        width = self.size.width
        if not self._items:
            return Content.styled(self._note, "$text-muted").truncate(width, ellipsis=True)
        shown = self._items[self._top : self._top + max(1, self.size.height)]
        room = width - 4 - min(12, max(cell_len(item.about) for item in shown))
        column = min(max(cell_len(item.label) for item in shown), room)
        return Content("\n").join(self._line(item, self._top + i == self._chosen, column) for i, item in enumerate(shown))

    def _line(self, item: Suggestion, chosen: bool, column: int) -> Content:
        label = _tail(item.label, column) if item.is_path else item.label
        name = Content(label).truncate(column, ellipsis=True, pad=True)
        about = Content.styled(f"  {item.about}", "" if chosen else "$text-muted")
        line = Content.assemble("> " if chosen else "  ", name, about).truncate(self.size.width, ellipsis=True, pad=True)
        return line.stylize(_CHOSEN) if chosen else line

    def on_click(self, event: events.Click) -> None:
        event.stop()
        at = self._top + event.y
        if 0 <= at < len(self._items):
            self._chosen = at
            self.post_message(self.Taken())

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.move(1)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.move(-1)


def _tail(label: str, width: int) -> str:
    """The end of a label that is too long: that is where a path has its name."""
    if cell_len(label) <= width:
        return label
    while label and cell_len(label) > width - 1:
        label = label[1:]
    return f"…{label}"
