"""What an empty conversation shows: how to begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.widgets import Static

if TYPE_CHECKING:
    from tui.talk.notes import AgentFacts

_ART = "\\ | /\n \\|/ \n  |  "  # lines of one width, so that they stay together when each is centred
_WIDE = (
    "Ask something and press Enter.",
    "@ names a file, / lists commands, F1 shows the keys.",
)
_NARROW = ("Ask something, press Enter.", "@ file   / commands   F1 keys")


class Welcome(Static):
    """Says what can be done, and what the model may use."""

    def __init__(self) -> None:
        super().__init__(markup=False)
        self._facts: AgentFacts | None = None
        self._said = ""

    def on_mount(self) -> None:
        self._say()

    def on_resize(self) -> None:
        self._say()

    def know(self, facts: AgentFacts | None) -> None:
        """The agent that is there now."""
        self._facts = facts
        self._say()

    def _say(self) -> None:
        narrow = self.size.width < 56
        lines = list(_NARROW if narrow else _WIDE)
        if self._facts is not None and self._facts.tools:
            asking = [t.name for t in self._facts.tools if t.approval == "ask"]
            count = len(self._facts.tools)
            asks = "some ask first" if asking else "none needs to ask"
            lines.append(f"{count} {'tool' if count == 1 else 'tools'}; {asks} (/tools)")
        elif self._facts is not None and self._facts.small:
            lines.append("no tools (/tools)" if narrow else "A model this small does without tools; /tools switches them on.")
        art = f"{_ART}\n\n" if self.size.height >= 10 else ""
        said = art + "\n".join(lines)
        if said != self._said:
            self._said = said
            self.update(said)
