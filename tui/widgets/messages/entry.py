"""What messages have in common on the screen: they take the focus, and keys do something with them."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Static

from tui.talk.entries import Entry


class EntryView(Vertical, can_focus=True):
    """A message of the conversation. ``entry`` is None until it is known how it is kept; ``mine`` says that a person wrote it."""

    FOCUS_ON_CLICK = False  # who clicks to read, or to copy words, goes on writing; ctrl+up is for the keys below
    mine: ClassVar[bool] = False

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "want('copy')", "Copy", id="message.copy"),
        Binding("k", "want('code')", "Copy code", id="message.code"),
        Binding("e", "want('edit')", "Edit", id="message.edit"),
        Binding("r", "want('again')", "Again", id="message.again"),
        Binding("left", "want('before')", "Branch before", id="message.before", show=False),
        Binding("right", "want('next')", "Next branch", id="message.next", show=False),
        Binding("t", "want('thinking')", "Thinking", id="message.thinking", show=False),
        Binding("up", "step(-1)", "Message above", id="message.up", show=False),
        Binding("down", "step(1)", "Message below", id="message.down", show=False),
    ]

    class Wanted(Message):
        """A person wants something done with a message: copy, code, edit, again, before, next or thinking."""

        def __init__(self, view: EntryView, what: str) -> None:
            self.view, self.what = view, what
            super().__init__()

    class Left(Message):
        """There is no message in that direction."""

        def __init__(self, step: int) -> None:
            self.step = step
            super().__init__()

    def __init__(self, entry: Entry | None = None) -> None:
        super().__init__()
        self.entry = entry

    @property
    def text(self) -> str:
        """What a person copies."""
        return self.entry.stored.message.text if self.entry is not None else ""

    def settle(self, entry: Entry) -> None:
        """It is kept now, and may have siblings."""
        self.entry = entry
        if self.is_mounted:
            self._show_branch()

    def on_mount(self) -> None:
        self._show_branch()

    def branch(self) -> Static:
        """The line that says which branch this is; each message has one at its end."""
        line = Static(markup=False, classes="branch")
        line.display = False
        return line

    def _show_branch(self) -> None:
        """Say which branch this is, where there are several: ``‹ 2/3 ›``."""
        line, entry = self.query_one(".branch", Static), self.entry
        line.display = entry is not None and len(entry.siblings) > 1
        if entry is not None and line.display:
            line.update(f"‹ {entry.place}/{len(entry.siblings)} ›")

    def action_want(self, what: str) -> None:
        self.post_message(self.Wanted(self, what))

    def action_step(self, step: int) -> None:
        around = self.parent.children if self.parent is not None else ()
        neighbours: list[EntryView] = [w for w in around if isinstance(w, EntryView)]
        at = neighbours.index(self) + step
        if 0 <= at < len(neighbours):
            neighbours[at].focus()
        else:
            self.post_message(self.Left(step))
