"""The head of a plot: its title, and which sign and colour stand for which series."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.evaluate.report.svg import fitting, marker, width_of, write

_LEFT, _LINE = 12.0, 22.0
_TITLE = 14.0


def heading(title: str, width: float) -> str:
    return write(_LEFT, 20, fitting(title, width - 2 * _LEFT, 1.06 * _TITLE), most=200, class_="strong", font_size=_TITLE)


def legend_of(series: Sequence[str], width: float, top: float) -> tuple[list[str], float]:
    """The entries, in as many lines as they need, and the height in pixels below them."""
    parts, x, y = [], _LEFT, top
    for n, name in enumerate(fitting(one, min(300, width - 50)) for one in series):
        wide = width_of(name) + 34
        if x + wide > width and x > _LEFT:
            x, y = _LEFT, y + _LINE
        parts.append(marker(n, x + 6, y + 6) + write(x + 17, y + 10, name))
        x += wide
    return parts, y + _LINE
