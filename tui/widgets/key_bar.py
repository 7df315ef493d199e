"""The keys at the bottom of the chat."""

from __future__ import annotations

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import Footer
from textual.widgets._footer import FooterKey


class KeyBar(Footer):
    """Textual's footer, made anew only where its keys have changed, and not each time the keyboard goes elsewhere.

    A key that has no room is left out, never cut.
    """

    def __init__(self) -> None:
        super().__init__(compact=True, show_command_palette=False)
        self._keys: list[tuple[str, str, str, bool]] = []
        self._room = 0

    def compose(self) -> ComposeResult:
        used, self._room = 0, self.app.size.width
        for key in super().compose():
            if isinstance(key, FooterKey):
                used += cell_len(key.key_display) + 1 + cell_len(key.description)
                if used > self._room:
                    return
                used += 1
                key.add_class("-compact", update=False)  # as it will be; otherwise it is styled once more
            yield key

    def on_resize(self) -> None:
        if self.app.size.width != self._room:
            self.call_after_refresh(self.recompose)

    def bindings_changed(self, screen: Screen[object]) -> None:
        keys = [
            (binding.key, binding.action, binding.description, enabled)
            for _, binding, enabled, _ in screen.active_bindings.values()
            if binding.show
        ]
        if keys != self._keys and screen.app.app_focus:
            self._keys = keys
            super().bindings_changed(screen)
