"""How a server's tool is now, against how a person knows it; and whether that is accepted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from tui.screens.dialog import BACK, Dialog, KeyHint
from tui.widgets.messages.diff import DiffView

_UNSEEN = "It differs only in what is not shown: words beyond those that the model gets."
_UNKNOWN = "How it was before was not kept; this is how it is now."
_NOTE = "Accepted, your rules cover it again; until then it is asked for each time."


class ChangeScreen(Dialog[bool]):
    """True when the change is accepted; no key that is pressed by habit does that."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("a", "accept", "Accept", show=False)]
    KEYS: ClassVar[tuple[KeyHint, ...]] = (("↑↓", "scroll", ""), ("a", "accept", "accept"), BACK)

    def __init__(self, tool: str, diff: str) -> None:
        """``diff`` is untrusted."""
        super().__init__(f"{tool} is not as you knew it")
        self._diff = diff

    def parts(self) -> Iterable[Widget]:
        view = DiffView(self._diff, opened=True)
        with VerticalScroll():
            yield view
        known = any(line.kind in ("removed", "same") for line in view.lines)
        about = _UNSEEN if not view.lines else "" if known else _UNKNOWN
        yield Static(f"{about} {_NOTE}".strip(), id="note", markup=False)

    def on_resize(self, event: events.Resize) -> None:
        self.query_one(VerticalScroll).styles.max_height = self.list_height(12)

    def action_accept(self) -> None:
        self.dismiss(True)
