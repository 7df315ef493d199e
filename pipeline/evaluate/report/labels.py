"""Where the names of points are written, so that they cover neither each other nor a point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.evaluate.report.svg import FONT, width_of

_DISTANCES = (9.0, 14.0, 20.0, 28.0, 38.0, 50.0)  # pixels from the point
_DIRECTIONS = (0, -1, 1, -2, 2, 8, -7, 7, -4, 4, -3, 3, -6, 6, -5, 5)  # sixteenths of a turn, the most readable first
_FAR = 18.0  # from here on a line leads to the point
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def shared(self, other: Box) -> float:
        """The area that two have in common."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return wide * high if wide > 0 and high > 0 else 0.0

    def outside(self, frame: Box) -> float:
        """The area that lies outside a frame."""
        return (self.right - self.left) * (self.bottom - self.top) - self.shared(frame)

    def distance(self, x: float, y: float) -> float:
        """From a place to the nearest edge; 0 inside."""
        return math.hypot(max(self.left - x, 0, x - self.right), max(self.top - y, 0, y - self.bottom))


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


_Options = Sequence[tuple[float, Label]]


def place(
    names: Sequence[str], points: Sequence[tuple[float, float]], solid: Sequence[Box], lines: Sequence[Box], frame: Box
) -> list[Label]:
    """A place for each name near its point, inside the frame.

    Args:
        names: one a point.
        points: in pixels.
        solid: what must not be covered: the points' signs, in their order, then error bars.
        lines: what should not be covered.
        frame: what must not be left.
    """
    options = [_options(name, x, y) for name, (x, y) in zip(names, points, strict=True)]
    costs = [
        [cost + _standing(label, own, points, solid, lines, frame) for cost, label in choices]
        for own, choices in enumerate(options)
    ]
    orders = (lambda i: i, lambda i: points[i][1], lambda i: -points[i][1], lambda i: points[i][0])
    tries = [_settle(options, costs, sorted(range(len(options)), key=order)) for order in orders]
    chosen = min(tries)[1]
    return [choices[k][1] for choices, k in zip(options, chosen, strict=True)]


def _settle(options: Sequence[_Options], costs: Sequence[Sequence[float]], order: Sequence[int]) -> tuple[float, list[int]]:
    """What it costs, and a place for each name: in this order, each looks at those before it, and later at all others."""
    chosen = [0] * len(options)
    total = 0.0
    for turn in range(_ROUNDS):
        total = 0.0
        for n, i in enumerate(order):
            others = [options[o][chosen[o]][1] for o in (order if turn else order[:n]) if o != i]
            found = [costs[i][k] + sum(_clash(label, other) for other in others) for k, (_, label) in enumerate(options[i])]
            total += min(found)
            chosen[i] = found.index(min(found))
    return total, chosen


def _standing(
    label: Label,
    own: int,
    points: Sequence[tuple[float, float]],
    solid: Sequence[Box],
    lines: Sequence[Box],
    frame: Box,
) -> float:  # fmt: skip
    """What a place costs because of all that is no label."""
    cost = 4 * sum(label.box.shared(other) for other in solid) + 0.5 * sum(label.box.shared(other) for other in lines)
    gaps = [label.box.distance(x, y) for x, y in points]
    cost += 15 * sum(gap < gaps[own] + 2 for n, gap in enumerate(gaps) if n != own)  # it would seem to be another's name
    if label.lead is not None:
        (x, y), (end_x, end_y) = points[own], label.lead
        steps = [(x + (end_x - x) * k / 6, y + (end_y - y) * k / 6) for k in range(3, 7)]
        cost += 20 * sum(box.distance(*step) == 0 for n, box in enumerate(solid[: len(points)]) if n != own for step in steps)
    return cost + 20 * label.box.outside(frame)


def _clash(one: Label, other: Label) -> float:
    return 4 * one.box.shared(other.box) + (10 if one.lead and other.lead else 0)


def _options(name: str, x: float, y: float) -> list[tuple[float, Label]]:
    """All places for a name, each with what it costs to stand there and not at the best one."""
    wide, high = width_of(name), FONT
    found = []
    for distance in _DISTANCES:
        for rank, sixteenths in enumerate(_DIRECTIONS):
            angle = sixteenths * math.pi / 8
            end_x, end_y = x + distance * math.cos(angle), y + distance * math.sin(angle)
            left = end_x - wide * (0.0 if math.cos(angle) > 0.1 else 1.0 if math.cos(angle) < -0.1 else 0.5)
            top = end_y - high / 2 + (high / 2 if sixteenths == 4 else -high / 2 if sixteenths == -4 else 0)
            box = Box(left - 1, top - 1, left + wide + 1, top + high + 2)
            lead = (end_x, end_y) if distance > _FAR else None
            found.append((1.5 * rank + 2.0 * (distance - _DISTANCES[0]), Label(name, left, top + high * 0.86, box, lead)))
    return found
