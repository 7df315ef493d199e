"""The quiet line at the bottom: what the model does, how fast, and how the machine is."""

from __future__ import annotations

import time
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.style import Style
from textual.timer import Timer
from textual.widget import Widget

from tui.status.pieces import SEPARATOR, StatusPiece, pieces
from tui.status.status import Status

CALM = 0.4  # seconds that a number stands at least; faster ones cannot be read, and each repaint takes from the model


class StatusLine(Widget, can_focus=True):
    """One row. At its left what changes, at its right what seldom does; what does not fit is left out, never cut."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "status-line--quiet",
        "status-line--name",
        "status-line--busy",
        "status-line--good",
        "status-line--warn",
        "status-line--bad",
        "status-line--separator",
    }
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "details", "Details", id="status.details")]

    class DetailsWanted(Message):
        """A person wants to see all of it."""

        def __init__(self, status: Status) -> None:
            self.status = status
            super().__init__()

    def __init__(self) -> None:
        super().__init__()
        self.status = Status()
        self._painted: list[StatusPiece] = []
        self._painted_at = -CALM
        self._later: Timer | None = None

    def update(self, status: Status) -> None:
        """Show another status: at once when the model does something else, and numbers as often as they can be read.

        It costs a repaint only when something that is shown differs.
        """
        urgent = _headline(status) != _headline(self.status)
        self.status = status
        if self._later is not None and not urgent:
            return
        if self._pieces() != self._painted:
            wait = self._painted_at + CALM - time.monotonic()
            if urgent or wait <= 0:
                self.refresh()
            else:
                self._later = self.set_timer(wait, self._catch_up)

    def _catch_up(self) -> None:
        self._later = None
        if self._pieces() != self._painted:
            self.refresh()

    @property
    def text(self) -> str:
        """The line as it is shown."""
        return self._line(self._pieces()).plain

    def render(self) -> Content:
        self._painted, self._painted_at = self._pieces(), time.monotonic()
        return self._line(self._painted)

    def action_details(self) -> None:
        self.post_message(self.DetailsWanted(self.status))

    def on_click(self) -> None:
        self.action_details()

    def _pieces(self) -> list[StatusPiece]:
        return pieces(self.status, self.content_size.width)

    def _line(self, some: list[StatusPiece]) -> Content:
        left, right = (self._join([p for p in some if p.right is side]) for side in (False, True))
        gap = self.content_size.width - left.cell_length - right.cell_length
        return Content.assemble(left, " " * gap, right) if right else left

    def _join(self, some: list[StatusPiece]) -> Content:
        separator = Content.styled(SEPARATOR, self._style("separator"))
        return separator.join(Content.styled(piece.text, self._style(piece.role)) for piece in some)

    def _style(self, role: str) -> Style:
        return self.get_visual_style(f"status-line--{role}")  # not partial: contrast depends on the ground


def _headline(status: Status) -> tuple[object, ...]:
    return status.state, status.queued, status.voice.kind, bool(status.device.throttled)
