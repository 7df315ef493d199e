"""The colours: each is shown while the cursor is on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from tui.screens.dialog import BACK, Dialog, KeyHint
from tui.themes import names

_ABOUT = {
    "sprig": "dark",
    "sprig-light": "light",
    "sprig-contrast": "high contrast",
    "sprig-16": "the terminal's colours",
}
_SAMPLE = "Words  [b]bold[/b]  [$text-success]✓ done[/]  [$text-warning]! look[/]  [$text-error]✗ failed[/]"


class ThemeScreen(Dialog[str]):
    """The result is the theme that was chosen; Esc brings back the one that was there."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "choose", "Choose", show=False)]
    KEYS: ClassVar[tuple[KeyHint, ...]] = (("↑↓", "look", ""), ("Enter", "keep", "choose"), BACK)

    def __init__(self) -> None:
        super().__init__("Which colours?")
        self._names = names()
        self._before = ""

    def parts(self) -> Iterable[Widget]:
        yield OptionList(*(Option(f"  {n}  {_ABOUT.get(n, '')}".rstrip()) for n in self._names), markup=False)
        yield Static(_SAMPLE, id="sample")

    def on_mount(self) -> None:
        self._before = self.app.theme
        options = self.query_one(OptionList)
        if self._before in self._names:
            options.highlighted = self._names.index(self._before)
        options.focus()

    @on(OptionList.OptionHighlighted)
    def _look(self, event: OptionList.OptionHighlighted) -> None:
        self.app.theme = self._names[event.option_index]

    @on(OptionList.OptionSelected)
    def action_choose(self) -> None:
        self.dismiss(self.app.theme)

    def action_leave(self) -> None:
        self.app.theme = self._before
        self.dismiss(None)
