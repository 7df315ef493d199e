"""docs/promises.md holds: every promise has a test, every test that it names exists, no bullet of README is missing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.fixtures.paths import ROOT

PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
PAGES = ("README.md", "docs/approval.md", "docs/chat.md", "docs/agent.md", "docs/quantize.md", "SECURITY.md")
ROWS = re.findall(r"^\| (?!Promise \||---)(.*) \| (.*) \| (.*) \|$", PAGE, re.MULTILINE)
NAMED = sorted({name for _, _, tests in ROWS for name in re.findall(r"`([^`]+)`", tests)})


def bullets() -> list[str]:
    """The bold words that begin each point of README's "What you can count on"."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## What you can count on\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    return re.findall(r"^- \*\*(.+?)\*\*", section[1], re.MULTILINE)


def in_file(path: Path) -> frozenset[str]:
    """The tests that stand in a file, which is read and not imported."""
    if not path.is_file():
        return frozenset()
    functions = (
        n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return frozenset(f.name for f in functions if f.name.startswith("test_"))


def test_every_test_that_is_named_exists() -> None:
    there = {path: in_file(ROOT / path) for path in {name.partition("::")[0] for name in NAMED}}
    gone = [name for name in NAMED if name.partition("::")[2] not in there[name.partition("::")[0]]]
    assert gone == [], "docs/promises.md names tests that are not there: write what holds the promise up now"


def test_what_is_no_test_is_found_out() -> None:
    assert in_file(ROOT / "tests" / "no_such_file.py") == frozenset()
    here = in_file(Path(__file__))
    assert "test_what_is_no_test_is_found_out" in here
    assert "bullets" not in here


def test_every_promise_has_a_test_and_says_where_it_stands() -> None:
    assert len(ROWS) > 100
    test = r"`tests/[^`]+::test_\w+`"
    assert [p for p, _, tests in ROWS if not re.fullmatch(f"{test}(<br>{test})*", tests)] == [], "without a test"
    assert [p for p, where, _ in ROWS if "](" not in where] == [], "without a place"
    lines = [line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith(("| Promise |", "|---"))]
    assert len(lines) == len(ROWS), "a row has three columns"


@pytest.mark.parametrize("bullet", bullets())
def test_every_point_of_the_readme_is_a_row(bullet: str) -> None:
    assert [promise for promise, _, _ in ROWS if promise.startswith(f"**{bullet}**")], (
        f"docs/promises.md has no row for **{bullet}**"
    )


def test_every_page_that_promises_has_its_table() -> None:
    assert re.findall(r"^## (.*)$", PAGE, re.MULTILINE) == list(PAGES)
    assert len(bullets()) >= 10
