"""Facts to be read: a name and what there is to say of it, line by line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from agent.text import display
from tui.screens.dialog import BACK, Dialog, KeyHint

_BESIDE = 60  # columns from which the value stands beside its name, not below


class DetailsScreen(Dialog[None]):
    """Rows of (name, value); a row without a value is a heading. Arrows scroll."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,q", "leave", "Back", show=False)]
    KEYS: ClassVar[tuple[KeyHint, ...]] = (("↑↓", "scroll", ""), BACK)

    def __init__(self, rows: Sequence[tuple[str, str]], heading: str = "Details", note: str = "") -> None:
        """Any of the texts may come from anywhere."""
        super().__init__(heading)
        self._rows, self._note = rows, note

    def parts(self) -> Iterable[Widget]:
        with VerticalScroll():
            yield Static(id="rows")
        if self._note:
            yield Static(display(self._note, lines=True), id="note", markup=False)

    def on_resize(self, event: events.Resize) -> None:
        self.query_one(VerticalScroll).styles.max_height = self.list_height(12)
        self.query_one("#rows", Static).update(rows_content(self._rows, event.size.width))


def rows_content(rows: Sequence[tuple[str, str]], width: int) -> Content:
    """The rows for a screen of so many columns."""
    names = [display(name) for name, value in rows if value]
    column = min(24, max((len(name) for name in names), default=0)) if width >= _BESIDE else 0
    return Content("\n").join(_row(display(name), display(value, lines=True), column) for name, value in rows)


def _row(name: str, value: str, column: int) -> Content:
    if not value:
        return Content.styled(name, "bold $text-accent")
    if not column:
        return Content.assemble((name, "bold"), "\n  ", value.replace("\n", "\n  "))
    indent = "\n" + " " * (column + 2)
    return Content.assemble((f"{name:<{column}}  ", "bold"), value.replace("\n", indent))
