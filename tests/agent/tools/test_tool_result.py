"""What a tool gives back, made fit for a prompt."""

from __future__ import annotations

import enum
import json
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.tools.define import tool
from agent.tools.result import MAX_TEXT, ToolResult, cap, clean, to_result
from tests.fixtures.generated import runs


@dataclass
class Reading:
    sensor: str
    value: float


class Kind(enum.Enum):
    A = "a"


@pytest.mark.parametrize(
    ("value", "text", "data"),
    [
        (None, "done", None),
        ("as is\n", "as is\n", None),
        (5, "5", 5),
        (True, "true", True),
        ({"ä": [1, 2]}, '{"ä":[1,2]}', {"ä": [1, 2]}),
        (Reading("t", 1.5), '{"sensor":"t","value":1.5}', {"sensor": "t", "value": 1.5}),
        ([Kind.A, date(2026, 1, 2), {3}], '["a","2026-01-02",[3]]', ["a", "2026-01-02", [3]]),
        (float("nan"), "nan", "nan"),
        ({1: float("inf")}, '{"1":"inf"}', {"1": "inf"}),
        (b"\x89PNG\r\n", "PNG image, 6 bytes", None),
        (bytes(5_000_000), "binary data, 5,000,000 bytes", None),
        (Path("no/such.png"), "no/such.png", "no/such.png"),
    ],
)
def test_values_as_results(value: Any, text: str, data: Any) -> None:
    result = to_result(value)
    assert (result.ok, result.text, result.data) == (True, text, data)
    json.dumps(result.data, allow_nan=False)


def test_a_picture_is_handed_on_by_its_path(tmp_path: Path) -> None:
    picture = tmp_path / "leaf.PNG"
    picture.write_bytes(b"\x89PNG")
    result = to_result(picture)
    assert (result.text, result.image) == ("image leaf.PNG", str(picture))
    assert to_result(tmp_path).image is None


def test_what_has_no_end_is_cut() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert "..." in to_result(endless).text


@pytest.mark.parametrize(
    ("dirty", "clean_text"),
    [
        ("plain", "plain"),
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x\x1b]8;;http://e\x1b\\link\x1b]8;;\x1b\\", "xlink"),
        ("\x1b]52;c;ZXZpbA==\x07", ""),
        ("\x9b31mred", "red"),
        ("a\x00b\x08c\x7f", "abc"),
        ("50%\r100%\r\ndone", "50%\n100%\ndone"),
        ("\ud800x\udcff", "\ufffdx\ufffd"),
        ("bidi\u202egpj.exe\u2066", "bidigpj.exe"),
        ("tags\U000e0041\U000e0042", "tags"),
        ("\ufeffbom", "bom"),
        ("می\u200cخواهم 👩\u200d🌾", "می\u200cخواهم 👩\u200d🌾"),
        ("\x1bP1$r\x1b\\q", "q"),
        ("\x1b", ""),
    ],
)
def test_terminal_and_invisible_characters_do_not_reach_the_model(dirty: str, clean_text: str) -> None:
    assert clean(dirty) == clean_text


@settings(max_examples=runs(300), derandomize=True, deadline=None, database=None)
@given(st.text(st.characters(exclude_categories=()), max_size=60))
def test_whatever_comes_is_encodable_and_clean_twice_is_clean_once(text: str) -> None:
    once = clean(text)
    once.encode("utf-8")
    assert not [c for c in once if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0]
    assert clean(once) == once


def test_head_and_tail_stay_and_the_middle_is_counted() -> None:
    text = "".join(str(i % 10) for i in range(20_000))
    short, left_out = cap(text, 1000)
    assert len(short) <= 1000
    assert short.startswith(text[:600])
    assert short.endswith(text[-300:])
    assert f"[... {left_out:,} characters left out ...]" in short
    kept = short.replace(f"\n[... {left_out:,} characters left out ...]\n", "")
    assert len(kept) + left_out == len(text)


@pytest.mark.parametrize(("text", "limit"), [("", 0), ("abc", 3), ("abc", 2), ("abc" * 100, 79), ("abc" * 100, 80), ("x" * 5, 0)])
def test_cap_never_gives_more_than_its_limit(text: str, limit: int) -> None:
    short, left_out = cap(text, limit)
    assert len(short) <= limit
    assert (left_out == 0) == (len(text) <= limit)


def test_a_hundred_megabytes_of_escapes_are_cut_at_once() -> None:
    @tool
    def storm() -> str:
        return "\x1b[2J\x00" * 20_000_000

    began = time.monotonic()
    result = storm.invoke({})
    assert time.monotonic() - began < 2
    assert result.ok
    assert len(result.text) <= MAX_TEXT
    assert result.cut > 99_000_000
    assert "\x1b" not in result.text


def test_a_result_of_the_tools_own_is_cleaned_too() -> None:
    @tool
    def mine() -> ToolResult:
        return ToolResult(False, "no\x1b[2J", data={"n": 1})

    result = mine.invoke({})
    assert (result.ok, result.text, result.data) == (False, "no", {"n": 1})
