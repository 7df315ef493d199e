"""The plots: well-formed pictures of the figures that they were given, which fetch nothing and run nothing."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluate.figures import Estimate
from pipeline.evaluate.report.dots import dots_svg
from pipeline.evaluate.report.names import short_names
from pipeline.evaluate.report.pareto import Point, pareto_front, pareto_svg
from tests.fixtures.generated import runs

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert('1')</script>\"&]]>\x1b[31m\u202e\ud800"


def parsed(svg: str) -> ElementTree.Element:
    """The picture's root; it names nothing outside itself."""
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", svg)
    assert {e.tag for e in root.iter()} <= {
        f"{SVG}{tag}" for tag in ("svg", "style", "title", "rect", "circle", "polygon", "polyline", "path", "line", "text")
    }
    assert not [name for e in root.iter() for name in e.attrib if name.startswith("on") or "href" in name]
    return root


def texts(root: ElementTree.Element) -> list[str]:
    return [e.text or "" for e in root.iter(f"{SVG}text")]


def tips(root: ElementTree.Element) -> list[str]:
    """What is said where a mouse rests; the first title is the picture's."""
    return [e.text or "" for e in root.iter(f"{SVG}title")][1:]


def test_the_front_is_what_no_smaller_file_beats() -> None:
    points = [Point(name, "a", size, loss) for name, size, loss in (("a", 3, 0.1), ("b", 1, 0.5), ("c", 2, 0.6), ("d", 2, 0.3))]
    assert [p.name for p in pareto_front([*points, Point("e", "a", 4, 0.1)])] == ["b", "d", "a"]


def test_size_against_loss_shows_every_file_its_error_and_the_front() -> None:
    points = [
        Point("Q4_0", "stock", 76_000_000, 0.6, 0.1),
        Point("Q8_0", "stock", 145_000_000, 0.002),
        Point("worse", "ours", 90_000_000, 0.7, 0.2),
    ]
    root = parsed(pareto_svg(points))
    assert {"Q4_0", "Q8_0", "worse", "mean KL divergence, nats (log)", "size of the file, MB"} <= set(texts(root))
    assert tips(root) == ["Q4_0: 76.0 MB, 0.6 ± 0.1", "Q8_0: 145.0 MB, 0.002", "worse: 90.0 MB, 0.7 ± 0.2"]
    assert len(list(root.iter(f"{SVG}polyline"))) == 1
    assert len(list(root.iter(f"{SVG}path"))) == 2, "an error bar each, where it is longer than the sign"
    hollow = [e for e in root.iter() if e.get("fill") == "var(--paper)"]
    assert len(hollow) == 1, "the one that is not on the front"
    both = parsed(pareto_svg(points, each_series=True))
    assert {"stock", "ours"} <= set(texts(both)), "a legend"
    assert len(list(both.iter(f"{SVG}polyline"))) == 2
    assert not [e for e in both.iter() if e.get("fill") == "var(--paper)"]


def test_dots_stand_in_the_order_of_their_figures() -> None:
    groups = {"en": {"a": Estimate(0.1, 0.05), "b": Estimate(0.4)}, "zh": {"a": Estimate(0.2), "b": Estimate(0)}}
    root = parsed(dots_svg(groups))
    assert {"Divergence by domain", "en", "zh", "a", "b", "mean KL divergence, nats (log)"} <= set(texts(root))
    assert tips(root) == ["en, a: 0.1 ± 0.05", "en, b: 0.4", "zh, a: 0.2", "zh, b: 0"]
    circles = [float(e.attrib["cx"]) for e in root.iter(f"{SVG}circle")]
    assert circles[-2] < circles[-1], "a: 0.1, then 0.2"


def test_hostile_names_are_shown_and_do_nothing() -> None:
    groups = {HOSTILE: {HOSTILE: Estimate(1.0), "b": Estimate(2.0)}}
    for svg in (
        pareto_svg([Point(HOSTILE, HOSTILE, 1, 1.0)], each_series=True),
        dots_svg(groups),
    ):
        assert any("<script>" in text for text in texts(parsed(svg)))
        assert "\x1b" not in svg
        assert "\u202e" not in svg


FILES = st.builds(
    Point, st.text(max_size=9), st.sampled_from("ab"), st.integers(1, 10**11), st.floats(0, 40), st.none() | st.floats(0, 9)
)


@settings(max_examples=runs(12))
@given(st.sampled_from([360, 880]), st.lists(FILES, min_size=1, max_size=7), st.booleans())
def test_any_files_make_a_picture(width: int, points: list[Point], each: bool) -> None:
    root = parsed(pareto_svg(points, width=width, each_series=each))
    assert len(tips(root)) == len(points)
    for e in root.iter(f"{SVG}circle"):
        assert 0 <= float(e.attrib["cx"]) <= width


def test_names_in_a_plot_leave_out_what_all_share() -> None:
    assert short_names(["SmolLM2-135M-Q4_K_M.gguf", "SmolLM2-135M-Q4_K_S.gguf"]) == ["Q4_K_M", "Q4_K_S"]
    assert short_names(["d-Q4_0.gguf", "d-Q4_0-imatrix.gguf"]) == ["Q4_0", "Q4_0-imatrix"]
    assert short_names(["model.gguf"]) == ["model"]
    assert short_names(["a.gguf", "a.gguf", "b.gguf"]) == ["a", "a (2)", "b"]
    assert short_names(["x-", "x-a"]) == ["x-", "x-a"]
