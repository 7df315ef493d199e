"""What a screen does about its size. Textual styles a screen twice and lays it out four times when it comes; once is enough."""

from __future__ import annotations

from typing import Any

from textual.geometry import Size
from textual.screen import Screen, ScreenResultType

from tui.terminal.compositor import RowCompositor


class SizedScreen(Screen[ScreenResultType]):
    """Knows its size from the start, and is laid out again only when it is another."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._compositor = RowCompositor()

    def take_size(self) -> None:
        """Take the classes of the app's breakpoints, to be called before its parts are made: they are styled with these then."""
        app, size = self.app, self.app.size
        for length, breakpoints in ((size.width, app.HORIZONTAL_BREAKPOINTS), (size.height, app.VERTICAL_BREAKPOINTS)):
            fitting = sorted((least, name) for least, name in breakpoints or () if least <= length)
            self.add_class(*(name for _, name in fitting[-1:]), update=False)

    def _screen_resized(self, size: Size) -> None:
        """Textual tells a size again that it has told, and one that it has laid out."""
        if size != self.outer_size:
            super()._screen_resized(size)
