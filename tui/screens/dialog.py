"""What every dialog has: a box with a heading, its parts, and a line of the keys, which can be clicked as well.

And the shortest one: a question before something is lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen, ScreenResultType
from textual.widget import Widget
from textual.widgets import Button, Static

from agent.text import display
from tui.screens.sized import SizedScreen

KeyHint = tuple[str, str, str]  # as it is written, what it does, the action of a click ("" for none)
_BOX = (60, 20)  # columns and lines from which there is a box around a dialog: the app's breakpoints
BACK: KeyHint = ("Esc", "back", "leave")


class Dialog(SizedScreen[ScreenResultType], ModalScreen[ScreenResultType]):
    """Lies over the chat; on a small screen it takes all of it. Its first part has the focus. Esc leaves without a result."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Back", show=False)]
    KEYS: ClassVar[tuple[KeyHint, ...]] = (BACK,)

    def __init__(self, heading: str) -> None:
        """``heading`` may be any text."""
        super().__init__()
        self._heading = heading

    def compose(self) -> ComposeResult:
        self.take_size()
        with Vertical(id="dialog"):
            yield Static(display(self._heading, lines=True), id="heading", markup=False)
            yield from self.parts()
            yield Static(key_line(self.KEYS), id="keys")

    def parts(self) -> Iterable[Widget]:
        """The widgets between the heading and the keys."""
        return ()

    def say(self, text: str, *, wrong: bool = False) -> None:
        """Put a line, safe to show, into the part ``#about``."""
        about = self.query_one("#about", Static)
        about.update(f"✗ {text}" if wrong else text)
        about.set_class(wrong, "-wrong")

    def say_keys(self, keys: tuple[KeyHint, ...]) -> None:
        """Other keys hold now."""
        self.query_one("#keys", Static).update(key_line(keys))

    def list_height(self, others: int) -> int | str:
        """The most lines of a list, where the other parts of the box take so many; without a box it takes what is left."""
        boxed = self.app.size.width >= _BOX[0] and self.app.size.height >= _BOX[1]
        return max(4, self.app.size.height - others) if boxed else "100%"

    def action_leave(self) -> None:
        self.dismiss(None)


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


def key_line(keys: Iterable[KeyHint]) -> Content:
    """Keys and what they do. Names do not break at a space, so that a narrow line breaks between them."""
    parts = []
    for key, does, action in keys:
        text = f"[b]{key}[/] {does}".replace(" ", "\u00a0")
        parts.append(Content.from_markup(f"[@click=screen.{action}]{text}[/]" if action else text))
    return Content("  ").join(parts)
