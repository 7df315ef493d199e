"""What a file tool says has changed: exact where it fits, bounded where it does not."""

from __future__ import annotations

import random
import re
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.text.line_diff import MAX_DIFF, unified
from tests.fixtures.generated import runs

_TEXT = st.lists(st.sampled_from(["", "a", "b", "-- c", "++ d", "@@ -1 +1 @@", "e\r", "f\u2028g"]), max_size=30).map("\n".join)


def applied(before: str, diff: str) -> str:
    """``before`` with a diff applied, by its line numbers; every line that it says is there must be there."""
    old = re.findall(r"[^\n]*\n|[^\n]+", before)
    new: list[str] = []
    at = 0
    lines = diff.split("\n")[2:-1]
    for i, line in enumerate(lines):
        if header := re.fullmatch(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", line):
            start = int(header[1]) - (header[2] != "0")
            new += old[at:start]
            at = start
            assert len(new) == int(header[3]) - (header[4] != "0")
            continue
        if line.startswith("\\"):
            continue
        text = line[1:] + ("" if lines[i + 1 : i + 2] == ["\\ No newline at end of file"] else "\n")
        if line[0] in " -":
            assert old[at] == text
            at += 1
        if line[0] in " +":
            new.append(text)
    return "".join(new + old[at:])


@settings(max_examples=runs(300), deadline=None, database=None, derandomize=True)
@given(_TEXT, _TEXT)
def test_the_diff_leads_from_one_text_to_the_other(before: str, after: str) -> None:
    diff, cut = unified(before, after, "x")
    assert cut == 0
    assert (diff == "") == (before == after)
    if diff:
        assert applied(before, diff) == after


def test_a_change_far_down_a_long_file_is_shown_with_its_place() -> None:
    lines = [f"line {i}\n" for i in range(40_000)]
    before = "".join(lines)
    lines[30_000] = "changed\n"
    diff, cut = unified(before, "".join(lines), "long.txt")
    assert cut == 0
    assert "@@ -29998,7 +29998,7 @@\n line 29997\n" in diff
    assert "-line 30000\n+changed\n" in diff


def test_a_missing_newline_at_the_end_is_said() -> None:
    assert unified("x", "x\n", "f")[0].endswith("-x\n\\ No newline at end of file\n+x\n")


def test_texts_that_have_nothing_in_common_cost_little_and_are_cut() -> None:
    shuffled = random.Random(5)
    before = "".join(f"{shuffled.random()}\n" for _ in range(20_000))
    after = "".join(f"{shuffled.random()}\n" for _ in range(20_000))
    began = time.monotonic()
    diff, cut = unified(before, after, "f")
    assert time.monotonic() - began < 2
    assert len(diff) <= MAX_DIFF
    assert diff.endswith("\n")
    assert diff.count("\n") + cut == 40_000 + 3


def test_a_line_of_a_megabyte_is_cut() -> None:
    diff, cut = unified("x" * 1_000_000, "y" * 1_000_000, "f")
    assert cut == 0
    assert len(diff) < 5_000
    assert diff.count("\u2026 [998,000 more characters]") == 2


def test_a_name_cannot_forge_a_line() -> None:
    assert "\n+evil" not in unified("a\n", "b\n", "x\n+evil")[0]
