"""The text field of the prompt: its keys, its pastes, and how marks look in it. What the keys mean is the prompt's business."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Protocol, cast

from rich.text import Text
from textual import events
from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
from textual.actions import SkipAction
from textual.binding import Binding, BindingType
from textual.document._document import Selection
from textual.geometry import Size
from textual.keys import Keys
from textual.widgets import TextArea

from agent.files import human_size
from tui.prompt.pastes import MOST, Pastes, clean

# Alt+Enter of a terminal without the kitty protocol is ESC and CR. Textual makes Enter of it, which would send.
cast(dict[str, Any], ANSI_SEQUENCES_KEYS).setdefault("\x1b\r", (Keys.ControlJ,))

_SHOWN_WHOLE = 20_000  # characters of a text that is put in; a longer one becomes a mark
_LONGEST_LINE = 4_000  # characters; a longer one is wrapped anew at each key


class Owner(Protocol):
    """What the field asks of the prompt that it belongs to. What is returned: whether there was something to do."""

    async def send(self) -> None: ...
    def complete(self) -> bool: ...
    def leave(self) -> bool: ...
    def step(self, by: int) -> bool: ...
    def search(self) -> None: ...
    def tell(self, problem: str) -> None: ...
    def end(self) -> bool: ...


class PromptArea(TextArea):
    """A text field that grows with its text. It never holds a control character."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"prompt-area--mark"}

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send", id="prompt.send", show=False),
        # Many terminals cannot tell Shift+Enter from Enter; Ctrl+J is a line feed in each of them.
        Binding("ctrl+j,shift+enter,alt+enter", "newline", "New line", id="prompt.newline", show=False),
        Binding("tab", "complete", "Complete", id="prompt.complete", show=False),
        Binding("escape", "leave", "Close the list, leave editing", id="prompt.leave", show=False),
        Binding("up", "step(-1)", "Line up, earlier message", id="prompt.up", show=False),
        Binding("down", "step(1)", "Line down, later message", id="prompt.down", show=False),
        Binding("ctrl+r", "search", "Search what was sent", id="prompt.search", show=False),
        Binding("ctrl+u", "clear", "Clear the text", id="prompt.clear", show=False),
        Binding("ctrl+d", "end", "Leave, when nothing is written", id="prompt.end", show=False),
        Binding("ctrl+underscore", "undo", "Undo what was typed", id="prompt.undo", show=False),
    ]

    def __init__(self, owner: Owner, pastes: Pastes) -> None:
        super().__init__(compact=True, highlight_cursor_line=False)
        self._owner = owner
        self._pastes = pastes
        self.cursor_blink = False  # a blink is a redraw, and nothing is redrawn while nothing happens
        self.match_cursor_bracket = False  # looks through the whole text at each key

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """A third of the screen at most: 5 lines of 15, never more than 12."""
        return min(max(1, self.virtual_size.height), max(3, min(12, viewport.height // 3)))

    def _refresh_size(self) -> None:
        before = self.virtual_size.height
        super()._refresh_size()
        if self.virtual_size.height != before:
            self.refresh(layout=True)

    async def _on_key(self, event: events.Key) -> None:
        # Textual looks bindings up in the task of the app: what is typed right after Enter would be in the text before it is
        # sent. So the field looks up its own bindings, with the keys that a person has given them.
        key = event.key.replace("\r", "enter")  # xterm's own code for Shift+Enter comes as "shift+\r"
        if not event.is_printable and (active := self.screen.active_bindings.get(key)) and active.node is self:
            event.prevent_default()
            if await self.app.run_action(active.binding.action, self):
                event.stop()
        elif event.key == "enter" or event.key.startswith(("alt+", "ctrl+")):
            # Enter has been given to something else. And Alt with a letter brings the letter along, which is not to be typed.
            event.prevent_default()

    async def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        await self.paste(event.text)

    async def paste(self, text: str) -> None:
        """Put a text in at the cursor: a long one as a mark."""
        if len(text) > MOST:
            size, most = human_size(len(text.encode(errors="replace"))), human_size(MOST)
            self._owner.tell(f"the pasted text has {size}, more than the {most} that fit: save it as a file and name that with @")
            return
        pieces: list[str] = []
        for piece in clean(text):
            pieces.append(piece)
            await asyncio.sleep(0)
        text = "".join(pieces)
        if self._pastes.is_long(text):
            text = self._pastes.fold(text)
        result = self.replace(text, *self.selection, maintain_selection_offset=False)
        self.move_cursor(result.end_location)

    def before_cursor(self) -> str:
        """The text of the cursor's line that stands before it."""
        row, column = self.cursor_location
        return self.document.get_line(row)[:column]

    def at_edge(self, by: int) -> bool:
        """Whether the cursor is in the first line (``by`` -1), or the last (1), as the text is wrapped."""
        top = self.wrapped_document.location_to_offset(self.cursor_location).y
        return top == 0 if by < 0 else top == self.wrapped_document.height - 1

    def continue_line(self) -> bool:
        """Make a line feed of a backslash at the end of a line, which works on any terminal; whether there was one."""
        row, column = self.cursor_location
        line = self.document.get_line(row)
        if column != len(line) or not line.endswith("\\"):
            return False
        self.replace("\n", (row, column - 1), (row, column), maintain_selection_offset=False)
        return True

    async def action_send(self) -> None:
        await self._owner.send()

    def action_newline(self) -> None:
        self.replace("\n", *self.selection, maintain_selection_offset=False)
        self.scroll_cursor_visible()

    def action_complete(self) -> None:
        if not self._owner.complete():
            raise SkipAction  # Tab goes to the next widget, as everywhere

    def action_leave(self) -> None:
        if not self._owner.leave():
            raise SkipAction  # Esc stops the answer: the app's business

    def action_step(self, by: int) -> None:
        if not self._owner.step(by):
            (self.action_cursor_up if by < 0 else self.action_cursor_down)()

    def action_search(self) -> None:
        self._owner.search()

    def action_clear(self) -> None:
        self.clear()

    def action_end(self) -> None:
        if not self._owner.end():
            self.action_delete_right()

    async def action_paste(self) -> None:  # type: ignore[override]
        await self.paste(self.app.clipboard)

    def action_delete_left(self) -> None:
        if not self._delete_mark():
            super().action_delete_left()

    def action_delete_word_left(self) -> None:
        if not self._delete_mark():
            super().action_delete_word_left()

    def _delete_mark(self) -> bool:
        """A mark is one letter: half of it would stand for nothing."""
        if not self.selection.is_empty:
            return False
        row, column = self.cursor_location
        for start, end in self._pastes.marks(self.document.get_line(row)):
            if start < column <= end:
                self.delete((row, start), (row, end), maintain_selection_offset=False)
                return True
        return False

    def get_line(self, line_index: int) -> Text:
        line = super().get_line(line_index)
        for start, end in self._pastes.marks(line.plain):
            line.stylize(self.get_component_rich_style("prompt-area--mark", partial=True), start, end)
        return line

    def fill(self, text: str, *, at_start: bool = False) -> None:
        """Replace everything with a text from elsewhere: cleaned, and one that is too long as a mark."""
        text = "".join(clean(text))
        if len(text) > _SHOWN_WHOLE or max(map(len, text.split("\n"))) > _LONGEST_LINE:
            text = self._pastes.fold(self._pastes.expand(text))  # a mark within a mark would not be found
        self.put(text, at_start=at_start)

    def put(self, text: str, *, at_start: bool = False) -> None:
        """Replace everything, the cursor at the end or the start. It cannot be undone."""
        self.load_text(text)
        self.selection = Selection.cursor((0, 0) if at_start else self.document.end)
        self.scroll_cursor_visible()
