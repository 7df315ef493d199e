"""Untrusted text on its way to a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.text import brief, display
from tests.fixtures.generated import runs


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words, 12 %", "plain words, 12 %"),
        ("\x1b]52;c;ZXZpbA==\x07", "␛]52;c;ZXZpbA==␇"),
        ("a\rb\x00c\x7f", "a␍b␀c␡"),
        ("\x9b2J", "<U+009B>2J"),
        ("user\u202egpj.exe", "user<U+202E>gpj.exe"),
        ("zero\u200bwidth\ufeff", "zero<U+200B>width<U+FEFF>"),
        ("tag\U000e0041", "tag<U+E0041>"),
        ("\ufe01\U000e0101\u3164", "<U+FE01><U+E0101><U+3164>"),
        ("\udcff\ud800", "<FF><U+D800>"),
        ("line\u2028sep", "line<U+2028>sep"),
        ("grüße, 你好, שלום, ❤️, 🌱", "grüße, 你好, שלום, ❤️, 🌱"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_shown(text: str, shown: str) -> None:
    assert display(text) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\n\x1b", r"'a\n\x1b'"), ({"a": 1}, "{'a': 1}"), ("x" * 100, f"'{'x' * 78}…"), ("\ufe01", "'<U+FE01>'"),
    ],
)  # fmt: skip
def test_a_value_in_a_message_takes_a_part_of_a_line(value: object, shown: str) -> None:
    assert brief(value) == shown
    assert brief(10**5000) == "a number of thousands of digits"


def test_lines_may_stay_lines() -> None:
    assert display("a\n\tb\r\n") == "a␊␉b␍␊"
    assert display("a\n\tb\r\n", lines=True) == "a\n\tb␍\n"


@settings(max_examples=runs(300), derandomize=True, deadline=None, database=None)
@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_nothing_gets_through_and_nothing_changes_twice(text: str) -> None:
    shown = display(text)
    assert not [c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp", "Cn"}]
    assert display(shown) == shown
    shown.encode("utf-8")
