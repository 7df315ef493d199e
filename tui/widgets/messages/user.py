"""What a person said."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static

from agent.text import display
from tui.prompt.attach import split
from tui.talk.entries import Entry
from tui.widgets.messages.entry import EntryView

_LONGEST = 4000  # characters that are shown; the rest is in the session


class UserMessage(EntryView):
    """A person's message; files that were sent with it are named, not shown."""

    mine = True

    def __init__(self, text: str, entry: Entry | None = None) -> None:
        super().__init__(entry)
        self._text = text
        self._typed, self._files = split(text)

    @property
    def text(self) -> str:
        return self._text

    def compose(self) -> ComposeResult:
        yield Static(_shown(self._typed), markup=False, classes="words")
        for file in self._files:
            lines = file.content.count("\n") + 1
            yield Static(f"+ {display(file.name)} ({lines} {'line' if lines == 1 else 'lines'})", markup=False, classes="file")
        yield self.branch()


def _shown(text: str) -> str:
    cut = len(text) - _LONGEST
    return display(text[:_LONGEST], lines=True) + (f"\n… {cut:,} more characters" if cut > 0 else "")
