"""Size against what was lost, with the Pareto front: the plot of a report, and of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.evaluate.report.axis import NOTHING, Axis, linear_axis, log_axis, plain
from pipeline.evaluate.report.labels import Box, place
from pipeline.evaluate.report.legend import heading, legend_of
from pipeline.evaluate.report.svg import HIDDEN, colour, element, fitting, marker, picture, write

_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 18.0, 34.0, 46.0
_LOSS = "mean KL divergence, nats"


@dataclass(frozen=True, slots=True)
class Point:
    """A file in the plot.

    Attributes:
        name: written beside it.
        series: files of one series share a colour and a sign.
        size: bytes.
        loss: what was lost, 0 or more; the smaller, the better.
        error: standard error of ``loss``.
    """

    name: str
    series: str
    size: int
    loss: float
    error: float | None = None


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats: by size, each loses less than all smaller ones."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.size, p.loss)):
        if not front or point.loss < front[-1].loss:
            front.append(point)
    return front


def pareto_svg(
    points: Sequence[Point],
    *,
    width: float = 760,
    height: float = 440,
    each_series: bool = False,
) -> str:
    """The plot as an SVG document, in light and dark colours as the reader's system has them.

    Points on the Pareto front are filled and joined by a line, the others are hollow. Error bars are one standard error; one that
    is shorter than its sign is left out.

    Args:
        points: at least one; their losses on a logarithmic axis, where 0 lies at the low end.
        width, height: in pixels.
        each_series: every series has its front and stands in a legend; otherwise there is one front of all.
    """
    series = list(dict.fromkeys(p.series for p in points))
    legend, top = legend_of(series, width, _TOP) if each_series else ([], _TOP)
    across = linear_axis([p.size / 1e6 for p in points], _LEFT, width - _RIGHT)
    losses = [p.loss for p in points]
    bars = [v for p in points for v in ((p.loss - p.error, p.loss + p.error) if p.error else ()) if v > min(losses) / 3]
    up = log_axis([*losses, *bars], height - _BOTTOM, top)
    groups = [[p for p in points if p.series == name] for name in series] if each_series else [list(points)]
    fronts = [pareto_front(group) for group in groups]
    parts = [
        heading("Size against what was lost", width),
        *legend,
        *_axes(across, up, min(losses) <= NOTHING),
        *(_line(front, across, up, series, each_series) for front in fronts),
        *_points(points, across, up, series, {id(p) for front in fronts for p in front}),
        *_names(points, fronts, across, up, (_LEFT + 2, top, width - 3, height - _BOTTOM - 2)),
    ]
    return picture(width, height, parts, f"Size against what was lost: {len(points)} files, {_LOSS}")


def _axes(across: Axis, up: Axis, zero: bool) -> list[str]:
    parts = []
    for value in up.ticks(7):
        y = up.at(value)
        parts.append(element("line", x1=across.start, x2=across.end, y1=y, y2=y, class_="grid"))
        parts.append(write(across.start - 8, y + 4, plain(value), text_anchor="end", class_="soft"))
    if zero:
        parts.append(write(across.start - 8, up.start + 4, "0", text_anchor="end", class_="soft"))
    for value in across.ticks(max(3, int((across.end - across.start) / 90))):
        x = across.at(value)
        parts.append(element("line", x1=x, x2=x, y1=up.start, y2=up.start + 5, class_="axis"))
        parts.append(write(x, up.start + 19, plain(value), text_anchor="middle", class_="soft"))
    parts.append(element("line", x1=across.start, x2=across.end, y1=up.start, y2=up.start, class_="axis"))
    middle = (up.start + up.end) / 2
    turn = f"rotate(-90 14 {middle:.1f})"
    parts.append(write(14, middle, f"{_LOSS} (log)", text_anchor="middle", class_="soft", transform=turn))
    parts.append(write(across.end, up.start + 37, "size of the file, MB", text_anchor="end", class_="soft"))
    return parts


def _line(front: Sequence[Point], across: Axis, up: Axis, series: Sequence[str], coloured: bool) -> str:
    places = " ".join(f"{across.at(p.size / 1e6):.1f},{up.at(p.loss):.1f}" for p in front)
    stroke = colour(series.index(front[0].series)) if coloured else "var(--soft)"
    return element("polyline", points=places, fill="none", stroke=stroke, stroke_width=1.6, stroke_opacity="0.55")


def _points(points: Sequence[Point], across: Axis, up: Axis, series: Sequence[str], front: set[int]) -> list[str]:
    bars, markers = [], []
    for point in points:
        i, x, y = series.index(point.series), across.at(point.size / 1e6), up.at(point.loss)
        if point.error:
            low, high = up.at(point.loss - point.error), up.at(point.loss + point.error)
        if point.error and low - high > 2 * HIDDEN:
            path = f"M{x:.1f},{low:.1f}V{high:.1f}M{x - 3.5:.1f},{high:.1f}h7M{x - 3.5:.1f},{low:.1f}h7"
            bars.append(element("path", d=path, stroke=colour(i), stroke_width=1.3, fill="none"))
        error = f" ± {point.error:.2g}" if point.error else ""
        about = f"{point.name}: {point.size / 1e6:.1f} MB, {point.loss:.4g}{error}"
        markers.append(marker(i, x, y, hollow=id(point) not in front, about=about))
    return bars + markers


def _names(points: Sequence[Point], fronts: Sequence[Sequence[Point]], across: Axis, up: Axis, frame: Box) -> list[str]:
    places = [(across.at(p.size / 1e6), up.at(p.loss)) for p in points]
    bars = [
        (x - 4, up.at(point.loss + point.error), x + 4, up.at(point.loss - point.error))
        for point, (x, _) in zip(points, places, strict=True)
        if point.error
    ]
    lines = []
    for front in fronts:
        steps = [(across.at(p.size / 1e6), up.at(p.loss)) for p in front]
        for (x1, y1), (x2, y2) in pairwise(steps):
            for k in range(12):
                x, y = x1 + (x2 - x1) * (k + 0.5) / 12, y1 + (y2 - y1) * (k + 0.5) / 12
                lines.append((x - 2, y - 2, x + 2, y + 2))
    room = (frame[2] - frame[0]) * 0.45
    labels = place([fitting(p.name, room) for p in points], places, bars, lines, frame)
    parts = []
    for label, (x, y) in zip(labels, places, strict=True):
        if label.lead is not None:
            parts.append(element("line", x1=x, y1=y, x2=label.lead[0], y2=label.lead[1], class_="lead"))
        parts.append(write(label.x, label.y, label.text, class_="label"))
    return parts
