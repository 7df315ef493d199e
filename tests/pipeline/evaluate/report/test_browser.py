"""The page in a real browser: on a desk and on a phone, in the dark too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.evaluate.figures import Estimate
from pipeline.evaluate.report.write import write_report
from pipeline.evaluate.tasks.score import TaskScore
from tests.fixtures.browser import MISSING, Browser, find_chromium
from tests.pipeline.evaluate.report.evaluations import evaluation

# Texts of the plots that are shown, of which a part lies outside their picture.
_CUT_OFF = """[...document.querySelectorAll('svg[role=img] text')].filter(text => {
    const box = text.getBoundingClientRect(), frame = text.ownerSVGElement.getBoundingClientRect()
    const beside = box.left < frame.left - 1 || box.right > frame.right + 1
    return box.width && (beside || box.top < frame.top || box.bottom > frame.bottom)
}).map(text => text.textContent)"""
_PLOTS = "[...document.querySelectorAll('svg[role=img]')].filter(svg => svg.getBoundingClientRect().width).length"
_TOO_WIDE = "document.scrollingElement.scrollWidth - innerWidth"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if find_chromium() is None:
        pytest.skip(MISSING)
    async with Browser() as running:
        yield running


async def test_the_page_fits_a_desk_and_a_phone_and_asks_for_nothing(browser: Browser, tmp_path: Path) -> None:
    names = ("Some-Model-1.7B-Instruct-Q4_0.gguf", "Some-Model-1.7B-Instruct-Q8_0-with-a-rather-long-name-behind-it.gguf")
    found = evaluation((names[0], 1_000_000_000, 0.3), (names[1], 1_900_000_000, 0.0))
    score = TaskScore(names[1], "arc", "choice", 200, Estimate(0.5, 0.03), Estimate(0.5, 0.03), None)
    path = write_report(found, tmp_path, tasks=[score])
    page = await browser.page()
    for width in (1300, 360):
        await page.phone(width, 800)
        await page.open(path.as_uri())
        await page.wait_for("document.readyState === 'complete'", "the page")
        assert await page.evaluate(_PLOTS) == 2
        assert await page.evaluate(_CUT_OFF) == []
        assert await page.evaluate(_TOO_WIDE) <= 0
    await page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    body = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    paper = await page.evaluate("getComputedStyle(document.querySelector('svg[role=img] rect')).fill")
    assert body == paper == "rgb(20, 24, 27)"
    assert page.problems == []
    assert set(page.urls) == {path.as_uri()}
