"""A report on disk: a page that needs nothing else, and the same figures for scripts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent.errors import OutputError
from pipeline.evaluate.figures import Estimate
from pipeline.evaluate.report.write import check_folder, write_report
from pipeline.evaluate.speed import FileSpeed
from pipeline.evaluate.tasks.calls import CallScore
from pipeline.evaluate.tasks.score import TaskScore
from tests.pipeline.evaluate.report.evaluations import evaluation

FILES = (("m-Q4_0.gguf", 1_100_000, 0.6), ("m-Q5_0.gguf", 1_400_000, 0.2), ("m-Q8_0.gguf", 2_200_000, 0.002))
TASKS = [
    TaskScore("m-Q4_0.gguf", "arc", "choice", 200, Estimate(0.52, 0.035), Estimate(0.5, 0.035), None),
    TaskScore("m-Q5_0.gguf", "arc", "choice", 200, Estimate(0.55, 0.035), Estimate(0.5, 0.035), Estimate(0.03, 0.01)),
]
CALLS = [CallScore("m-Q4_0.gguf", True, 30, Estimate(0.7, 0.08), Estimate(0.9), Estimate(1.0), 10, Estimate(0.5, 0.1), None, 9.0)]
SPEEDS = [FileSpeed("m-Q4_0.gguf", 2, Estimate(210.0, 3.0), Estimate(47.0, 0.4), 0.21, 198_000_000)]
_EMPTY = {"meta", "rect", "circle", "polygon", "polyline", "path", "line"}


class Page(HTMLParser):
    """The elements of a page, its texts, and whether every element is closed where it should be."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(path.read_text("utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in _EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data + "\n"


def test_the_page_shows_all_that_was_measured(tmp_path: Path) -> None:
    found = evaluation(*FILES, tensors={"blk.0.attn_q.weight": 0.1, "output.weight": 0.2})
    path = write_report(found, tmp_path / "a" / "b", tasks=TASKS, calls=CALLS, speeds=SPEEDS)
    assert path == tmp_path / "a" / "b" / "index.html"
    page = Page(path)
    for said in ("m-Q4_0.gguf", "ref (reference)", "0.600", "± 0.030", "1 MB", "8 windows of 512 tokens", "By domain", "zh",
                 "Questions", "52.0 %", "+3.0 %", "Tool calls", "21 of 30", "Speed and memory", "198 MB", "210.0", "By tensor",
                 "a note", "2,048 tokens of 3 domains"):  # fmt: skip
        assert said in page.text, said
    svgs = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("role") == "img"]
    assert len(svgs) == 6, "three plots, each for a desk and for a phone"


def test_the_colours_of_all_files_mean_the_same_and_what_is_equal_everywhere_has_no_row(tmp_path: Path) -> None:
    found = evaluation(*FILES, tensors={"blk.0.attn_q.weight": 0.1, "blk.1.attn_q.weight": 0.0, "blk.0.attn_norm.weight": 0.0})
    second = replace(found.candidates[1], tensor_errors={"blk.0.attn_q.weight": 0.4, "blk.0.ffn_up.weight": 0.05})
    page = Page(write_report(replace(found, candidates=(found.candidates[0], second)), tmp_path))
    assert page.text.count("Error of each tensor, ") >= 2
    assert "attn_q" in page.text
    assert "attn_norm" not in page.text
    scales = [(a, b) for a, b in pairwise(page.text.split("\n")) if (a, b) == ("0.05", "0.4")]
    assert len(scales) == 4, "two files, each for a desk and for a phone"


def test_the_page_fetches_nothing_and_runs_nothing(tmp_path: Path) -> None:
    page = Page(write_report(evaluation(*FILES), tmp_path, tasks=TASKS))
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "a", "form"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "href", "style")]
    policy = next(a for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_hostile_names_notes_and_domains_stay_text(tmp_path: Path) -> None:
    bad = '</title><script>alert(1)</script><img src=x onerror=a>\x1b[2J\ud800"'
    found = evaluation(
        (bad, 1_000_000, 0.1), ("b", 2_000_000, 0.2), reference=bad, domains=("</svg>" + bad, "en"), tensors={bad: 0.1}
    )
    score = TaskScore(bad, bad, "short", 2, Estimate(0.5, 0.5), None, None)
    page = Page(write_report(found, tmp_path, tasks=[score]))
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert "<script>alert(1)</script>" in page.text
    assert "\x1b" not in page.text
    told = json.loads((tmp_path / "report.json").read_text("utf-8", "surrogateescape"))
    assert told["candidates"][0]["name"].startswith("</title>")


def test_without_a_reference_or_with_one_domain_there_is_less_to_show(tmp_path: Path) -> None:
    page = Page(write_report(evaluation(("a.gguf", 1_000_000, None), reference=None, domains=("text",)), tmp_path))
    assert "mean KLD" not in page.text
    assert "By domain" not in page.text
    assert "20.10" in page.text
    assert not [a for tag, a in page.tags if tag == "svg"]


def test_scripts_get_the_same_figures_and_no_nan(tmp_path: Path) -> None:
    def constant(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    speed = FileSpeed("m", 1, Estimate(math.nan), Estimate(math.inf, 1.0), 0.1, 5)
    write_report(evaluation(*FILES, tensors={"t": 0.5}), tmp_path, tasks=TASKS, calls=CALLS, speeds=[speed])
    told = json.loads((tmp_path / "report.json").read_text(), parse_constant=constant)
    assert [one["overall"]["kld"]["value"] for one in told["candidates"]] == [0.6, 0.2, 0.002]
    assert told["tasks"][1]["difference"]["value"] == 0.03
    assert (told["speeds"][0]["prefill"]["value"], told["speeds"][0]["decode"]["value"]) == (None, None)
    assert [one["tensor_errors"] for one in told["candidates"]] == [{"t": 0.5}, {}, {}]
    assert told["calls"][0]["right"]["error"] == 0.08


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_report(evaluation(*FILES), tmp_path / "file" / "report")


def test_whether_a_report_can_be_written_is_known_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "report"):
        with pytest.raises(OutputError, match=r"file is no folder; name another place"):
            check_folder(place)
    check_folder(tmp_path)
    check_folder(tmp_path / "a" / "b")
    assert [one.name for one in tmp_path.iterdir()] == ["file"], "nothing was made"
