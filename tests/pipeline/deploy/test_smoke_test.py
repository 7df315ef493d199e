"""What a device says of its test is a stranger's text: it becomes figures or one line, whatever it is."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import SprigError
from pipeline.deploy.smoke_test import SmokeTest, read_smoke_test

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIGURES = ("prefill_tokens", "prefill_seconds", "generated_tokens", "decode_seconds", "first_token_seconds", "memory")


def test_the_answer_is_found_among_other_lines() -> None:
    usage = dict(zip(FIGURES, (30, 0.5, 10, 2, 0.7, 1_000_000), strict=True))
    said = f"Welcome!\n{json.dumps({'text': 'x' * 900, 'reason': 'length', 'usage': usage})}\n\n"
    found = read_smoke_test(said)
    assert (found.reads, found.writes, found.first, found.memory) == (60, 5, 0.7, 1_000_000)
    assert len(found.answer) == 500


def judged(text: str) -> SmokeTest | None:
    try:
        found = read_smoke_test(text, "the last line")
    except SprigError as e:
        line = str(e)
    else:
        assert all(math.isfinite(n) and n >= 0 for n in (found.reads, found.writes, found.first, found.memory))
        return found
    assert "\n" not in line
    assert len(line) < 3000
    return None


@given(st.fixed_dictionaries({}, optional={"text": VALUES, "error": VALUES, "usage": VALUES}))
def test_any_object_is_a_figure_or_a_line(said: dict[str, object]) -> None:
    judged(json.dumps(said))


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIGURES, VALUES | st.integers(1, 10**400))))
def test_any_figure_is_one_or_none(usage: dict[str, object]) -> None:
    judged(json.dumps({"text": "x", "usage": usage}))


@given(st.text())
def test_any_text_is_a_line(text: str) -> None:
    judged("{" + text)


@pytest.mark.parametrize("text", ["{" * 100_000, '{"usage": ' + "[" * 100_000, '{"usage": 1' + "0" * 10_000 + "}"])
def test_what_is_made_to_break_a_parser_is_a_line(text: str) -> None:
    assert judged(text) is None
