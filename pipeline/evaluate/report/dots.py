"""The divergence of several files by domain: dots with error bars, a row a domain."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.evaluate.figures import Estimate
from pipeline.evaluate.report.axis import NOTHING, Axis, log_axis, plain
from pipeline.evaluate.report.legend import heading, legend_of
from pipeline.evaluate.report.svg import HIDDEN, colour, element, fitting, marker, picture, width_of, write

_TOP, _BOTTOM, _RIGHT = 34.0, 46.0, 18.0
_LANE, _GAP = 14.0, 12.0
_TITLE = "Divergence by domain"


def dots_svg(groups: Mapping[str, Mapping[str, Estimate]], *, width: float = 760) -> str:
    """The plot as an SVG document.

    Args:
        groups: at least one; group -> file -> its figure, on a logarithmic axis, where 0 lies at the low end.
        width: in pixels; the height follows from what there is.
    """
    series = list(dict.fromkeys(name for group in groups.values() for name in group))
    legend, top = legend_of(series, width, _TOP) if len(series) > 1 else ([], _TOP)
    left = min(width / 3, max(width_of(name) for name in groups) + 24)
    values = [one.value for group in groups.values() for one in group.values()]
    least = min((v for v in values if v > NOTHING), default=1.0)
    ends = [v for group in groups.values() for one in group.values() for v in _ends(one) if v > least / 3]
    across = log_axis([*values, *ends], left, width - _RIGHT)
    lanes = max(_LANE * len(series), _LANE + 4)
    height = top + (lanes + _GAP) * len(groups) + _BOTTOM
    parts = [heading(_TITLE, width), *legend, *_grid(across, top, height - _BOTTOM, min(values) <= NOTHING)]
    for row, (name, group) in enumerate(groups.items()):
        y = top + (lanes + _GAP) * row
        if row:
            parts.append(element("line", x1=12, x2=across.end, y1=y, y2=y, class_="grid"))
        parts.append(write(across.start - 10, y + (lanes + _GAP) / 2 + 4, fitting(name, left - 14), text_anchor="end"))
        for file, one in group.items():
            n = series.index(file)
            lane = y + _GAP / 2 + lanes * (n + 0.5) / len(series)
            parts.append(_dot(n, across, lane, one, f"{name}, {file}"))
    return picture(width, height, parts, f"{_TITLE}: {len(groups)} groups, {len(series)} files")


def _ends(one: Estimate) -> tuple[float, ...]:
    return (one.value - one.error, one.value + one.error) if one.error else ()


def _grid(across: Axis, top: float, bottom: float, zero: bool) -> list[str]:
    parts = []
    for value in across.ticks(max(4, int((across.end - across.start) / 70))):
        x = across.at(value)
        parts.append(element("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
        parts.append(write(x, bottom + 18, plain(value), text_anchor="middle", class_="soft"))
    if zero:
        parts.append(write(across.start, bottom + 18, "0", text_anchor="middle", class_="soft"))
    parts.append(element("line", x1=across.start, x2=across.end, y1=bottom, y2=bottom, class_="axis"))
    parts.append(write(across.end, bottom + 36, "mean KL divergence, nats (log)", text_anchor="end", class_="soft"))
    return parts


def _dot(n: int, across: Axis, y: float, one: Estimate, about: str) -> str:
    bar, error = "", ""
    if one.error:
        low, high = (across.at(v) for v in _ends(one))
        error = f" ± {one.error:.2g}"
    if one.error and high - low > 2 * HIDDEN:
        path = f"M{low:.1f},{y:.1f}H{high:.1f}M{low:.1f},{y - 3.5:.1f}v7M{high:.1f},{y - 3.5:.1f}v7"
        bar = element("path", d=path, stroke=colour(n), stroke_width=1.3, fill="none")
    return bar + marker(n, across.at(one.value), y, about=f"{about}: {one.value:.4g}{error}")
