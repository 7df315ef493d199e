"""Painting only what has changed, and laying out once.

Textual asks every widget that touches a changed row for all the rows that it shows, and lays all widgets out again when it is
asked for the place of one after a layout that followed a scroll or brought a widget.
"""

from __future__ import annotations

from collections.abc import Iterable

from textual._compositor import Compositor, ReflowResult
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget


class RowCompositor(Compositor):
    """Asks for the changed rows alone. Textual calls it the same way; should it stop to, all is painted as before."""

    def reflow(self, parent: Widget, size: Size) -> ReflowResult:
        """Lay all widgets out; where each is, is known then."""
        result = super().reflow(parent, size)
        self._full_map_invalidated = False
        return result

    def _get_renders(self, crop: Region | None = None) -> Iterable[tuple[Region, Region, list[Strip]]]:
        """Where each widget is, the part of the screen that is painted of it, and its strips there."""
        if not crop:
            yield from super()._get_renders(crop)
            return
        rows = Region(0, crop.y, self.size.width, crop.height)  # whole rows: they are cut where widgets begin, nowhere else
        for widget, (region, clip) in self.visible_widgets.items():
            shown = clip.intersection(rows)
            part = region.intersection(shown)
            if part:
                yield region, shown, widget.render_lines(part.translate(-region.offset))
