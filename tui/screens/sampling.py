"""How words are drawn: a field for each value, checked while it is typed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widget import Widget
from textual.widgets import Input, Static

from agent.errors import SprigError
from agent.settings.declare import find_setting
from agent.settings.values import SamplingSettings
from agent.text import display
from tui.screens.dialog import BACK, Dialog, KeyHint
from tui.settings.sampling_values import DEFAULT_TOKENS, NAMES, Values, current, limits, read
from tui.talk.setup import Setup


class SamplingScreen(Dialog[Values]):
    """The result is all values; None in it means "as the model has it"."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "app.focus_previous", "Before", show=False),
        Binding("down", "app.focus_next", "Next", show=False),
        Binding("ctrl+s", "apply", "Use them", show=False),
    ]
    KEYS: ClassVar[tuple[KeyHint, ...]] = (("↑↓", "move", ""), ("Enter", "use these", "apply"), BACK)

    def __init__(self, setup: Setup) -> None:
        super().__init__("How are words drawn?")
        self._values = current(setup)

    def parts(self) -> Iterable[Widget]:
        with VerticalScroll(can_focus=False):
            for name in NAMES:
                value = self._values[name]
                empty = f"{DEFAULT_TOKENS:,}" if name == "max_tokens" else "as the model has it"
                with Horizontal():
                    yield Static(name, classes="name", markup=False)
                    yield Input("" if value is None else f"{value}", placeholder=empty, id=name, compact=True, max_length=30)
                    yield Static(limits(name), classes="limits", markup=False)
        yield Static("", id="about", markup=False)

    def on_descendant_focus(self) -> None:
        if isinstance(self.focused, Input):
            self._check(self.focused)

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        if event.input is self.focused:
            self._check(event.input)

    def _check(self, field: Input) -> bool:
        """Say what is wrong with a field, or what it is for."""
        name, wrong = field.id or "", ""
        try:
            read(name, field.value)
        except SprigError as e:
            wrong = display(str(e))
        one = find_setting(SamplingSettings, name)
        self.say(wrong or (one.teach if one is not None else ""), wrong=bool(wrong))
        field.set_class(bool(wrong), "-wrong")
        return not wrong

    @on(Input.Submitted)
    def action_apply(self) -> None:
        fields = list(self.query(Input))
        for field in fields:
            if not self._check(field):
                field.focus()
                return
        self.dismiss({field.id or "": read(field.id or "", field.value) for field in fields})
