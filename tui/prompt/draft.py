"""What is being written: a message, an earlier one anew, or the words of a search; and what comes back after it."""

from __future__ import annotations

from typing import Literal

from tui.prompt.history import Walk

Mode = Literal["write", "edit", "search"]


class Draft:
    """The state of the prompt beside its text.

    Attributes:
        mode: "write" a message, "edit" an earlier one, or "search" what was sent.
        title: says what is edited or searched.
        walk: through the history, while the Up key leads through it.
    """

    def __init__(self) -> None:
        self.mode: Mode = "write"
        self.title = ""
        self.walk: Walk | None = None
        self._beneath: list[tuple[Mode, str, str]] = []  # mode, title and text to come back to

    @property
    def covers(self) -> bool:
        """Whether something else comes back when this is over."""
        return bool(self._beneath)

    def begin(self, mode: Literal["edit", "search"], title: str, text: str) -> None:
        """Do something else; ``text`` is what has been written so far."""
        self._beneath.append((self.mode, self.title, text))
        self.mode, self.title, self.walk = mode, title, None

    def come_back(self) -> str:
        """Go on with what was there before. Returns its text."""
        self.mode, self.title, text = self._beneath.pop()
        self.walk = None
        return text

    def is_recalled(self, text: str) -> bool:
        """Whether a text is what the history has just put there, and nobody has typed."""
        return self.walk is not None and text == self.walk.text
