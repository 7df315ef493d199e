"""Untrusted text on its way out: to a screen, to a question, to a file or a pipe, to a script."""

from __future__ import annotations

import json
import re
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.text import DisplayStream, brief, display, json_text, one_line, reveal, shown_characters, verbatim
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


FAMILY = "👨\u200d👩\u200d👧\u200d👦"
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


@pytest.mark.parametrize(
    "text",
    [
        FAMILY, "🏳️\u200d🌈", "👩🏽\u200d🚀", "👩🏻\u200d❤️\u200d💋\u200d👨🏿", "🧔\u200d♂️", "❤\ufe0f", "☺\ufe0e",
        "1\ufe0f\u20e3", "#\ufe0f\u20e3",
        ENGLAND, ENGLAND.replace("\U000e0065\U000e006e\U000e0067", "\U000e0073\U000e0063\U000e0074"),
        ENGLAND.replace("\U000e0065\U000e006e\U000e0067", "\U000e0077\U000e006c\U000e0073"), "🇩🇪", "👩\u200c👦",
        "می\u200cخواهم", "کتاب\u200cها", "۲۰\u200cساله", "PDF\u200cها", "ه\u200d.ق", "\u200dه\u200d", "به\u200c ",
        "ශ්\u200dරී", "ක\u200d්ව", "क्\u200dष", "क्\u200cष", "र\u200d्य", "ന്\u200d", "ক্\u200cষ", "ᠠ\u180bᠨ",
        "葛\U000e0100", "神\ufe00", "∩\ufe00",
        "\u2067שלום\u2069!", "a \u2068b \u2066c\u2069\u2069 d", "\u2066x\u2069\u2067y\u2069",
    ],
)  # fmt: skip
def test_invisible_characters_that_are_part_of_the_writing_stay(text: str) -> None:
    for whole in (text, f"say {text} and", f"{text} {text}"):
        assert display(whole) == whole
        assert display(f"{whole}\n\x1b", lines=True) == f"{whole}\n␛"
        stream = DisplayStream()
        assert "".join(map(stream.feed, whole)) + stream.end() == whole
    assert display(f"\u202e{text}") == f"<U+202E>{text}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pay\u200dpal, pay\u200cpal", "pay<U+200D>pal, pay<U+200C>pal"),  # Latin has no use for joiners
        ("\u200d\u200d", "<U+200D><U+200D>"), ("👨\u200d", "👨<U+200D>"),
        ("\u200d👨", "<U+200D>👨"), ("👨\u200da", "👨<U+200D>a"),
        ("می\u200c\u200cخ", "می\u200c<U+200C>خ"), ("─\u200d─", "─<U+200D>─"), ("۱\u200b۲", "۱<U+200B>۲"),
        ("🙂\u200d" * 5 + "🙂", "🙂\u200d🙂\u200d🙂\u200d🙂<U+200D>🙂\u200d🙂"),  # drawn wider than it is counted
        ("a\ufe0f", "a<U+FE0F>"), ("1\ufe0f", "1<U+FE0F>"), ("❤\ufe0f\ufe0f\ufe0e", "❤\ufe0f<U+FE0F><U+FE0E>"),
        ("😊\U000e0100", "😊<U+E0100>"), ("葛\U000e0100\U000e0101", "葛\U000e0100<U+E0101>"), ("a\ufe00", "a<U+FE00>"),
        ("\U0001f3f4\U000e0068\U000e0069\U000e007f", "\U0001f3f4<U+E0068><U+E0069><U+E007F>"), (ENGLAND[1:2], "<U+E0067>"),
        ("\u2067abc", "<U+2067>abc"), ("abc\u2069", "abc<U+2069>"), ("\u2067a\nb\u2069", "<U+2067>a␊b<U+2069>"),
        ("葛\u2067abc", "葛<U+2067>abc"), ("∩\u2066葛\u2069\u2069", "∩\u2066葛\u2069<U+2069>"), ("葛\u2069", "葛<U+2069>"),
        ("\u2066\u2067a\u2069", "<U+2066>\u2067a\u2069"), ("\u2067\u202ea\u202c\u2069", "\u2067<U+202E>a<U+202C>\u2069"),
        ("\ue000\uf8ff\U000f0000\U00100000", "<U+E000><U+F8FF><U+F0000><U+100000>"),  # private use
        ("\ufdd0\uffff\U0001ffff\u0378", "<U+FDD0><U+FFFF><U+1FFFF><U+0378>"),  # no characters, not assigned
        ("\u200e\u200f\u061c\xad", "<U+200E><U+200F><U+061C><U+00AD>"),
    ],
)  # fmt: skip
def test_everything_else_that_is_invisible_or_reorders_is_shown(text: str, shown: str) -> None:
    assert display(text) == shown


def test_what_a_person_says_yes_to_hides_nothing() -> None:
    for text in (FAMILY, "می\u200cخواهم", "\u2067a\u2069", "❤\ufe0f", ENGLAND):
        shown = reveal(f"rm {text}\n")
        assert shown.endswith("␊")
        assert len(re.findall("<U[+][0-9A-F]+>", shown)) == sum(len(reveal(c)) > 1 for c in text) > 0
        assert shown == "".join(map(reveal, f"rm {text}\n"))


def test_copies_files_and_pipes_get_what_was_said() -> None:
    said = f"{FAMILY} pay\u200dpal \u202eabc\u202c \ue000\u2028 \u2067open\n\tb"
    assert verbatim(said) == said
    assert verbatim("a\x1b[2J\x07\x9b\x7f\r\udcff\ud800") == "a␛[2J␇<U+009B>␡␍<FF><U+D800>"


def test_json_that_is_printed_is_the_same_json() -> None:
    value = {"name\x9b": f"\x1b]0;t\x07\x7f\u202e{FAMILY}\ue000\u2028", "n": [1, None, 2.5], "grüße": "你好"}
    for indent in (None, 1):
        text = json_text(value, indent=indent)
        assert json.loads(text) == value
        assert "grüße" in text
        assert reveal(text.replace("\n", "")) == text.replace("\n", "")
    assert json_text("\udcff") == '"\\udcff"'
    with pytest.raises(ValueError, match="Out of range"):
        json_text(float("nan"))


def test_a_line_that_was_cut_is_safe_where_it_ends() -> None:
    assert one_line("\u2067" + "a" * 400 + "\u2069", 10) == "<U+2067>aaaaaaaa…"
    assert one_line(FAMILY, 3).endswith("<U+200D>…")
    assert one_line("می\u200cخواهم") == "می\u200cخواهم"


def test_a_stream_waits_no_longer_than_it_must() -> None:
    stream = DisplayStream()
    pieces = ["Hel", "lo 1", "2 ", "👨", "\u200d", "👩", "! ", "\u2067", "ab", "c", "\u2069", ".", "\u2067x\n", "7"]
    shown = [stream.feed(piece) for piece in pieces]
    assert shown == ["Hel", "lo ", "12 ", "", "", "", "👨\u200d👩! ", "", "", "", "\u2067abc\u2069", ".", "<U+2067>x\n", ""]
    assert stream.end() == "7"
    assert stream.end() == ""


def test_what_waits_is_within_a_line_until_the_stream_ends() -> None:
    stream = DisplayStream()
    assert stream.feed("x\u2067a\tb\r") == "x"
    assert stream.waiting == "<U+2067>a␉b␍"
    assert stream.end() == "<U+2067>a\tb␍"
    assert stream.waiting == ""


def test_a_stream_does_not_wait_for_ever() -> None:
    stream = DisplayStream()
    shown = "".join(stream.feed("\u2067" if i == 0 else "word ") for i in range(200))
    assert shown.startswith("<U+2067>word word")
    assert len(shown) > 500
    for endless in ("\u2067" + "word " * 1000, "\u2067" * 5000, "👨\u200d" * 2500, "❤" + "\ufe0f" * 5000):
        stream = DisplayStream()
        assert len(stream.feed(endless)) > 4000
        stream.feed(endless)
        assert len(stream.waiting) < 5000


# Characters that mean something beside each other, so that chance meets the rules; and any others.
_NEIGHBOURS = (
    "ab1#\n\t \x1b\r👨👩❤🏽🏴©─‼مخه۱कष्රශල්ᠠ葛∩\u200c\u200d\u180b\ufe00\ufe01\ufe0e\ufe0f\U000e0100\u2066\u2067"
    "\u2068\u2069\u202e\u20e3"
    "\U000e0067\U000e0062\U000e0065\U000e006e\U000e007f\ue000\u0600\u17b4\U0001fae9\uffff\u061c"
)
_texts = st.one_of(st.text(st.sampled_from(_NEIGHBOURS), max_size=14), st.text(st.characters(exclude_categories=()), max_size=20))
_MAY_STAY = re.compile("[\u200c\u200d\u2066-\u2069]|(?<=[\U000e0067-\U000e007f\U0001f3f4])[\U000e0062-\U000e007f]")


@settings(max_examples=runs(400), derandomize=True, deadline=None, database=None)
@given(_texts, st.lists(st.integers(0, 14)))
def test_nothing_gets_through_nothing_changes_twice_and_pieces_make_the_whole(text: str, cuts: list[int]) -> None:
    for lines in (False, True):
        shown = display(text, lines=lines)
        plain = shown.translate({0x0A: None, 0x09: None}) if lines else shown
        hidden = [c for c in plain if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp", "Cn", "Co"}]
        assert not [c for c in hidden if not _MAY_STAY.match(c) and c not in ENGLAND]
        for line in shown.split("\n"):
            depth = 0
            for c in line:
                depth += ("\u2066" <= c <= "\u2068") - (c == "\u2069")
                assert depth >= 0
            assert depth == 0
        assert display(shown, lines=lines) == shown
        shown.encode("utf-8")
    stream = DisplayStream()
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = []
    for a, b in pairwise(places):
        pieces.append(stream.feed(text[a:b]))
        assert not re.match("[a-zA-Z\u240a ](?![^ -;=-~])", stream.waiting)  # nothing belongs to these
    assert "".join(pieces) + stream.end() == shown
    assert "".join(shown_characters(text)) == shown
    assert reveal(text) == "".join(map(reveal, text))
    assert not [c for c in verbatim(text) if unicodedata.category(c) in {"Cc", "Cs"} and c not in "\n\t"]
    if not re.search("[\ud800-\udfff]", text):
        assert json.loads(json_text(text)) == text
