"""A line from Sprig itself in the conversation: something went wrong, or was given up, and what can be done about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Button, Static

from agent.text import display


class Notice(Vertical):
    """A text and perhaps some offers, each a button whose name says what happens."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "app.focus_previous", "Before", show=False),
        Binding("right", "app.focus_next", "Next", show=False),
    ]

    class OfferTaken(Message):
        """An offer was taken."""

        def __init__(self, action: str) -> None:
            self.action = action
            super().__init__()

    def __init__(self, text: str, *, kind: str = "note", offers: Sequence[tuple[str, str]] = ()) -> None:
        """``kind`` is note, warning or error; ``offers`` are (action, label)."""
        super().__init__(classes=kind)
        self.text, self.kind, self.offers = text, kind, tuple(offers)

    def compose(self) -> ComposeResult:
        sign = {"error": "✗ ", "warning": "! "}.get(self.kind, "")
        yield Static(sign + display(self.text, lines=True), markup=False)
        if self.offers:
            with Horizontal():
                for action, label in self.offers:
                    button = Button(label, compact=True, name=action)
                    button.tooltip = None
                    yield button

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        for button in self.query(Button):
            button.disabled = True
        self.post_message(self.OfferTaken(event.button.name or ""))
