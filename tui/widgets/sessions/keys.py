"""The keys of the sessions' panel, as they are mapped now and where the keyboard is now. A click does what its key does."""

from __future__ import annotations

from textual.content import Content
from textual.message import Message
from textual.widgets import Static

_OWN = "sessions."


class SessionKeys(Static):
    """One or two lines of keys."""

    class KeyClicked(Message):
        """A key was clicked; ``id`` is that of its binding."""

        def __init__(self, id: str) -> None:
            self.id = id
            super().__init__()

    def __init__(self) -> None:
        super().__init__(markup=False)
        self._words: list[Content] = []

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self._read())
        self._read()

    def on_resize(self) -> None:
        self._show()

    def _read(self) -> None:
        found: dict[str, tuple[str, str]] = {}
        for active in self.screen.active_bindings.values():
            id, key = active.binding.id or "", self.app.get_key_display(active.binding)
            if id.startswith(_OWN) and (id not in found or len(key) < len(found[id][0])):
                found[id] = key, active.binding.description.lower()
        if found:  # while the keyboard is elsewhere, the keys of the list stay: a mouse can use them
            self._words = [
                Content.from_markup(f"[@click=choose('{id}')][b]$key[/b] $what[/]", key=key, what=what)
                for id, (key, what) in found.items()
            ]
            self._show()

    def _show(self) -> None:
        """Fill the lines; a key is never parted from what it does."""
        lines: list[Content] = []
        for word in self._words:
            longer = lines[-1] + "  " + word if lines else word
            if lines and longer.cell_length <= self.content_size.width:
                lines[-1] = longer
            else:
                lines.append(word)
        self.update(Content("\n").join(lines))

    def action_choose(self, id: str) -> None:
        self.post_message(self.KeyClicked(id))
