"""A question before something is lost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Button

from tui.screens.dialog import Dialog, KeyHint


class ConfirmScreen(Dialog[bool]):
    """Yes or no. "No" comes first and has the focus: Enter, pressed by habit, loses nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,up", "app.focus_previous", "Before", show=False),
        Binding("right,down", "app.focus_next", "Next", show=False),
    ]
    KEYS: ClassVar[tuple[KeyHint, ...]] = (("←→", "move", ""), ("Enter", "choose", ""), ("Esc", "no", "leave"))

    def __init__(self, question: str, yes_label: str) -> None:
        """``question`` may be any text; ``yes_label`` says what happens."""
        super().__init__(question)
        self._yes_label = yes_label

    def parts(self) -> Iterable[Widget]:
        with Horizontal():
            yield Button("No", id="no", compact=True)
            yield Button(self._yes_label, id="yes", compact=True, variant="error")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_leave(self) -> None:
        self.dismiss(False)
