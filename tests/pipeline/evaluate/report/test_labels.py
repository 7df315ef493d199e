"""Names of points: beside their point, in the frame, and not over each other."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from pipeline.evaluate.report.labels import Label, distance, place, shared

FRAME = (0.0, 0.0, 760.0, 440.0)


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return float(shared(np.array(one), np.array(other)))


def placed(points: list[tuple[float, float]], name: str = "file") -> list[Label]:
    return place([f"{name} {n}" for n in range(len(points))], points, [], [], FRAME)


def test_a_lone_name_stands_right_of_its_point() -> None:
    (label,) = placed([(100, 100)])
    assert label.lead is None
    assert 105 < label.x < 115
    assert 98 < label.y < 108


def test_a_name_at_the_edge_stays_in_the_frame() -> None:
    for corner in ((755.0, 5.0), (5.0, 435.0), (755.0, 435.0)):
        (label,) = placed([corner], "a rather long name")
        left, top, right, bottom = label.box
        assert overlap(label.box, FRAME) > 0.99 * (right - left) * (bottom - top), corner


def test_names_of_a_crowd_cover_neither_each_other_nor_a_point() -> None:
    for seed in range(6):
        draw = np.random.default_rng(seed)
        points = [(200 + float(x), 200 + float(y)) for x, y in zip(draw.normal(0, 60, 12), draw.normal(0, 60, 12), strict=True)]
        labels = placed(points)
        assert sum(overlap(one.box, two.box) for one, two in combinations(labels, 2)) < 10, seed
        signs = [(x - 7, y - 7, x + 7, y + 7) for x, y in points]
        assert sum(overlap(label.box, sign) for label in labels for sign in signs) < 60, seed


def test_a_name_far_from_its_point_has_a_line_to_it() -> None:
    points = [(300.0, 200.0 + 2 * n) for n in range(14)]
    labels = placed(points)
    assert any(label.lead for label in labels)
    for label, point in zip(labels, points, strict=True):
        assert float(distance(np.array(label.box), np.array(point))) < (60 if label.lead else 20)
