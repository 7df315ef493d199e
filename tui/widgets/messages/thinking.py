"""What a model thinks before it answers: one line, until somebody opens it."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from agent.text import display

_SHOWN = 20_000  # characters of a thought that are laid out; of a longer one, the end


class ThinkingView(Vertical):
    """A thought, folded. While it grows, its last words stand in the line."""

    def __init__(self, text: str = "", *, done: bool = True) -> None:
        super().__init__()
        self.text, self.done, self.opened = text, done, False

    def compose(self) -> ComposeResult:
        yield Static("", markup=False, classes="line")
        yield Static("", markup=False, classes="thought")

    def on_mount(self) -> None:
        self._show()

    def append(self, text: str) -> None:
        self.text += text
        if self.is_mounted:
            self._show()

    def finish(self) -> None:
        self.done = True
        if self.is_mounted:
            self._show()

    def toggle(self) -> None:
        self.opened = not self.opened
        self._show()

    def on_click(self) -> None:
        self.toggle()

    def _show(self) -> None:
        words = self.text.split()
        sign = "▾" if self.opened else "▸"
        about = f"thought, {len(words)} words" if self.done else "thinking"
        last = "" if self.opened or self.done else ": … " + " ".join(words[-8:])
        self.query_one(".line", Static).update(f"{sign} {about}{display(last)}")
        thought = self.query_one(".thought", Static)
        thought.display = self.opened
        if self.opened:
            thought.update(display(self.text[-_SHOWN:].strip(), lines=True))
