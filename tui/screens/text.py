"""A longer text, to be changed: the system prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import events, on
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Static, TextArea

from tui.prompt.pastes import clean
from tui.screens.dialog import BACK, Dialog, KeyHint


class CleanArea(TextArea):
    """A text field that never holds a character which a terminal would obey: a paste is cleaned."""

    async def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        result = self.replace("".join(clean(event.text)), *self.selection, maintain_selection_offset=False)
        self.move_cursor(result.end_location)


class TextScreen(Dialog[str]):
    """The result is the new text; None leaves it as it was. Esc asks once more where something would be lost."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+s", "save", "Save", show=False, priority=True)]
    KEYS: ClassVar[tuple[KeyHint, ...]] = (("Ctrl+S", "save", "save"), BACK)

    def __init__(self, heading: str, text: str, placeholder: str = "", note: str = "") -> None:
        """Args: ``placeholder`` stands where the text is empty, ``note`` below it. Both are safe to show."""
        super().__init__(heading)
        self._before = "".join(clean(text))
        self._placeholder, self._note = placeholder, note
        self._warned = False

    def parts(self) -> Iterable[Widget]:
        yield CleanArea(self._before, placeholder=self._placeholder, soft_wrap=True, tab_behavior="focus", compact=True)
        yield Static(self._note, id="note", markup=False)

    def on_mount(self) -> None:
        area = self.query_one(TextArea)
        area.move_cursor(area.document.end)
        area.focus()

    @on(TextArea.Changed)
    def _changed(self) -> None:
        if self._warned:
            self._warned = False
            self._say(self._note)

    def action_save(self) -> None:
        self.dismiss(self.query_one(TextArea).text)

    def action_leave(self) -> None:
        if self._warned or self.query_one(TextArea).text == self._before:
            self.dismiss(None)
        else:
            self._warned = True
            self._say("! Not saved. Esc again leaves it so, Ctrl+S saves.")

    def _say(self, text: str) -> None:
        note = self.query_one("#note", Static)
        note.update(text)
        note.set_class(self._warned, "-warning")
