"""What a person reads while a job runs: bars on a terminal, lines in a log, and in both the unit that is really counted."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from itertools import count
from typing import get_args

import pytest

from agent.cli import progress
from agent.cli.progress import Bars
from agent.progress import Progress, Unit

COUNTED = [unit for unit in get_args(Unit) if unit not in ("", "bytes")]


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _ten_seconds_between_looks_at_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "monotonic", count(0, 10).__next__)


def log(*steps: Progress, **says: str) -> list[str]:
    """The lines of a job that tells these steps."""
    return told(io.StringIO(), steps, says).splitlines()


def screen(*steps: Progress, **says: str) -> list[str]:
    """The bars that are left of it on a terminal."""
    return told(Terminal(), steps, says).splitlines()


def told(stream: io.StringIO, steps: Sequence[Progress], says: Mapping[str, str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        patch.setenv("TERM", "dumb")  # of 80 columns
        with Bars(says) as bars:
            for step in steps:
                bars.show(step)
    return stream.getvalue()


def test_bytes_are_told_as_a_size() -> None:
    steps = [Progress("download", done, 2_000_000, "bytes") for done in (0, 500_000, 2_000_000)]
    assert log(*steps) == ["download  25% of 2 MB, 30 s left", "download  2 MB in 20.0 s"]
    shown = "\n".join(screen(*steps))
    assert "2 MB of 2 MB" in shown


@pytest.mark.parametrize("unit", COUNTED)
def test_what_is_counted_is_told_by_its_name_and_never_in_bytes(unit: Unit) -> None:
    steps = [Progress("stage", done, 8_192, unit) for done in (0, 2_048, 8_192)]
    assert log(*steps) == [f"stage     25% of 8,192 {unit}, 30 s left", f"stage     8,192 {unit} in 20.0 s"]
    shown = "\n".join(screen(*steps))
    assert f"8,192 of 8,192 {unit}" in shown
    assert "B" not in shown
    assert f"{unit}/s" in shown


def test_a_share_is_a_share_and_says_what_else_there_is_to_say() -> None:
    steps = [Progress.of_share("learn", share, f"loss {1 - share:.1f}") for share in (0, 0.5, 1)]
    assert log(*steps) == ["learn     50%, 10 s left, loss 0.5", "learn     done in 20.0 s, loss 0.0"]
    shown = "\n".join(screen(*steps))
    assert "100%" in shown
    assert "loss 0.0" in shown
    assert "/s" not in shown


def test_what_was_there_already_is_said_of_bytes_alone() -> None:
    assert log(Progress("download", 5_000, 5_000, "bytes")) == ["download  5 kB, already there"]
    assert log(Progress("evaluate", 4, 4, "windows")) == ["evaluate  4 windows"]
    assert log(Progress.of_share("learn", 1)) == ["learn     done"]


def test_a_stage_of_no_known_length_is_told_of_once_in_the_words_of_its_command() -> None:
    steps = [Progress.begun("model"), Progress.begun("model"), Progress("write", 3, 3, "tokens")]
    assert log(*steps, model="a GGUF is made") == ["a GGUF is made", "write     3 tokens"]
    assert log(*steps[2:], write="it writes") == ["it writes: 3 tokens"]
    shown = screen(*steps, model="a GGUF is made")
    assert any("a GGUF is made" in line for line in shown)


def test_of_several_files_each_is_a_stage_of_its_own() -> None:
    steps = [Progress("download", done, total, "bytes") for total in (1_000, 3_000) for done in (0, total, total)]
    assert log(*steps) == ["download  1 kB in 10.0 s", "download  3 kB in 10.0 s"]
    assert "3 kB of 3 kB" in "\n".join(screen(*steps))


def test_what_was_done_before_does_not_shorten_the_time_that_is_left() -> None:
    steps = [Progress("download", done, 1_000, "bytes") for done in (800, 900)]
    assert log(*steps) == ["download  90% of 1 kB, 10 s left"]


def test_words_of_a_stranger_do_nothing_on_a_terminal() -> None:
    step = Progress.of_share("learn", 1, "loss \x1b]0;mine\x07")
    assert "\x1b]0" not in "".join([*log(step), *screen(step)])
