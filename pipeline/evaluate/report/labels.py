"""Where the names of points are written, so that they cover neither each other nor a point.

Every name may stand at some hundred places around its point. What a place costs beside points, lines and the frame is known
beforehand; then each name moves to where it costs least beside the other names, some rounds long, from several beginnings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.evaluate.report.svg import FONT, width_of

_DISTANCES = (9.0, 14.0, 20.0, 28.0, 38.0, 50.0)  # pixels from the point
_DIRECTIONS = (0, -1, 1, -2, 2, 8, -7, 7, -4, 4, -3, 3, -6, 6, -5, 5)  # sixteenths of a turn, the most readable first
_FAR = 18.0  # from here on a line leads to the point
_ROUNDS = 4
# What a square pixel costs that is covered, or lies outside; what a place costs that seems to be another point's, or whose line
# crosses a point, or is one of several lines.
_COVER, _COVER_LINE, _OUTSIDE, _MISTAKEN, _CROSSES, _BOTH_LEAD = 4.0, 0.5, 20.0, 15.0, 20.0, 10.0

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Label:
    """A name at its place.

    Attributes:
        x, y: of the start of its baseline.
        box: what it covers.
        lead: where a line from the point ends; None for a label that is beside its point.
    """

    text: str
    x: float
    y: float
    box: Box
    lead: tuple[float, float] | None


def place(
    names: Sequence[str], points: Sequence[tuple[float, float]], bars: Sequence[Box], lines: Sequence[Box], frame: Box
) -> list[Label]:
    """A place for each name near its point, inside the frame.

    Args:
        names: one a point.
        points: the middles of their signs, in pixels.
        bars: what must not be covered beside signs.
        lines: what should not be covered.
        frame: what must not be left.
    """
    options = [_options(name, x, y) for name, (x, y) in zip(names, points, strict=True)]
    ranks = np.array([1.5 * rank + 2.0 * (d - _DISTANCES[0]) for d in _DISTANCES for rank in range(len(_DIRECTIONS))])
    boxes = np.array([[label.box for label in labels] for labels in options])  # [names, places, 4]
    far = np.array([label.lead is not None for label in options[0]])
    middles = np.array(points, np.float64)
    signs = np.hstack([middles - 7, middles + 7])
    solid = np.vstack([signs, np.array(bars, np.float64).reshape(-1, 4)])
    costs = np.array([
        ranks
        + _COVER * shared(of[:, None], solid).sum(1)
        + _COVER_LINE * shared(of[:, None], np.array(lines, np.float64).reshape(-1, 4)).sum(1)
        + _OUTSIDE * ((of[:, 2] - of[:, 0]) * (of[:, 3] - of[:, 1]) - shared(of, np.array(frame)))
        + _MISTAKEN * (distance(of[:, None], middles) < distance(of, middles[own])[:, None] + 2).sum(1) - _MISTAKEN
        + _CROSSES * _crossed(options[own], middles, own)
        for own, of in enumerate(boxes)
    ])  # fmt: skip
    orders = (np.arange(len(names)), np.argsort(middles[:, 1]), np.argsort(-middles[:, 1]), np.argsort(middles[:, 0]))
    _, chosen = min((_settle(boxes, far, costs, [int(i) for i in order]) for order in orders), key=lambda found: found[0])
    return [labels[k] for labels, k in zip(options, chosen, strict=True)]


def shared(one: _Floats, other: _Floats) -> _Floats:
    """The area that boxes [..., 4] have in common."""
    wide = np.minimum(one[..., 2], other[..., 2]) - np.maximum(one[..., 0], other[..., 0])
    high = np.minimum(one[..., 3], other[..., 3]) - np.maximum(one[..., 1], other[..., 1])
    return np.asarray(np.maximum(wide, 0) * np.maximum(high, 0))


def distance(box: _Floats, point: _Floats) -> _Floats:
    """From points [..., 2] to the nearest edges of boxes [..., 4]; 0 inside."""
    beside = np.maximum(np.maximum(box[..., :2] - point, point - box[..., 2:]), 0)
    return np.asarray(np.hypot(beside[..., 0], beside[..., 1]))


def _crossed(labels: Sequence[Label], middles: _Floats, own: int) -> _Floats:
    """How many other signs the line to each place crosses, a sample of the line at a time."""
    ends = np.array([label.lead or middles[own] for label in labels])
    steps = middles[own] + (ends - middles[own])[:, None] * np.linspace(0.5, 1, 4)[:, None]  # [places, 4, 2]
    near = (np.abs(steps[:, :, None] - middles) < 7).all(-1)  # [places, 4, points]
    near[:, :, own] = False
    return np.asarray(near.sum((1, 2)), np.float64)


def _settle(boxes: _Floats, far: npt.NDArray[np.bool_], costs: _Floats, order: Sequence[int]) -> tuple[float, list[int]]:
    """What it costs, and a place for each name: in this order, each looks at those before it, and later at all others."""
    chosen, total = [0] * len(order), 0.0
    for turn in range(_ROUNDS):
        total = 0.0
        for n, i in enumerate(order):
            others = [o for o in (order if turn else order[:n]) if o != i]
            standing = boxes[others, [chosen[o] for o in others]]
            leads = sum(bool(far[chosen[o]]) for o in others)
            found = costs[i] + _COVER * shared(boxes[i][:, None], standing).sum(1) + _BOTH_LEAD * leads * far
            chosen[i] = int(found.argmin())
            total += float(found.min())
    return total, chosen


def _options(name: str, x: float, y: float) -> list[Label]:
    """All places for a name: by distance, then by direction."""
    wide, high = width_of(name), FONT
    found = []
    for away in _DISTANCES:
        for sixteenths in _DIRECTIONS:
            angle = sixteenths * math.pi / 8
            end_x, end_y = x + away * math.cos(angle), y + away * math.sin(angle)
            left = end_x - wide * (0.0 if math.cos(angle) > 0.1 else 1.0 if math.cos(angle) < -0.1 else 0.5)
            top = end_y - high / 2 + (high / 2 if sixteenths == 4 else -high / 2 if sixteenths == -4 else 0)
            box = (left - 1, top - 1, left + wide + 1, top + high + 2)
            found.append(Label(name, left, top + high * 0.86, box, (end_x, end_y) if away > _FAR else None))
    return found
