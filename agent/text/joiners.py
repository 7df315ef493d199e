"""Which invisible characters are part of the writing: joiners, variation selectors, flags' tags, balanced isolates.

Rules after Unicode: UAX 31 (joiners in scripts that use them), UTS 51 (emoji sequences), UAX 9 (isolates). Each is narrow: what
may be invisible here is one character beside visible ones that give it a meaning.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from functools import cache

JOINERS = ("\u200c", "\u200d")  # ZWNJ keeps two letters apart, ZWJ joins them
_POP_ISOLATE = "\u2069"
# U+180B is Mongolian's first selector, U+E0100 that of Chinese characters; U+E0020 is the first tag.
_SELECTORS = "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
_BEHIND = f"\u200c\u200d{_SELECTORS}\U000e0020-\U000e007f"
MAY_BELONG = re.compile(f"[{_BEHIND}\u2066-\u2069]")  # invisible, and text where its neighbours allow it
CONTINUES = re.compile(f"[{_BEHIND}\u20e3\U0001f3fb-\U0001f3ff]")  # belongs to the character before it, if to anything
_ISOLATES = re.compile("[\n\u2066-\u2069]")

# First and last of each: Arabic to Sinhala; Myanmar; Khmer and Mongolian; Tai Tham; Balinese to Batak; Syloti Nagri; Phags-pa and
# Saurashtra; Javanese, Myanmar's and Meetei Mayek's extensions; Meetei Mayek; Arabic's forms; Kharoshthi; Manichaean; Psalter
# Pahlavi; Rohingya; more of Arabic; Sogdian; Brahmi and its kin; Gurung Khema; Adlam.
_USE_JOINERS = (
    (0x0600, 0x0DFF), (0x1000, 0x109F), (0x1780, 0x18AF), (0x1A20, 0x1AAF), (0x1B00, 0x1BFF), (0xA800, 0xA82F), (0xA840, 0xA8FF),
    (0xA980, 0xA9FF), (0xAA60, 0xAA7F), (0xAAE0, 0xAAFF), (0xABC0, 0xABFF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC),
    (0x10A00, 0x10A5F), (0x10AC0, 0x10AFF), (0x10B80, 0x10BAF), (0x10D00, 0x10D3F), (0x10EC0, 0x10EFF), (0x10F30, 0x10FDF),
    (0x11000, 0x11AAF), (0x11B00, 0x11B7F), (0x11C00, 0x11F5F), (0x16100, 0x1613F), (0x1E900, 0x1E95F),
)  # fmt: skip
_MONGOLIAN = ((0x1820, 0x18AA),)
_HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_EMOJI = (
    (0xA9, 0xA9), (0xAE, 0xAE), (0x203C, 0x203C), (0x2049, 0x2049), (0x2122, 0x2122), (0x2139, 0x2139), (0x2194, 0x21AA),
    (0x231A, 0x23FA), (0x24C2, 0x24C2), (0x25AA, 0x27BF), (0x2934, 0x2935), (0x2B05, 0x2B55), (0x3030, 0x303D), (0x3297, 0x3299),
    (0x1F004, 0x1FAFF),
)  # fmt: skip
_LETTERS = frozenset({"Lo", "Lm", "Ll", "Lu", "Mn", "Mc", "Nd"})
# The three flags of subdivisions that are recommended for interchange: England, Scotland, Wales.
_FLAGS = ("gbeng", "gbsct", "gbwls")


def belonging(text: str) -> list[int]:
    """The places of the invisible characters that are part of the writing, in order."""
    found = set(_isolates(text)[0])
    for emoji in _emoji().finditer(text):
        if not any(unicodedata.category(sign) == "Cn" for sign in emoji[0]):
            found.update(at for at in range(*emoji.span()) if MAY_BELONG.match(text, at))
    for place in MAY_BELONG.finditer(text):
        at = place.start()
        if text[at] in JOINERS:
            if _joins(text, at):
                found.add(at)
        elif at and _selects(text[at - 1], text[at]):
            found.add(at)
    return sorted(found)


def open_isolate(text: str) -> int:
    """The place of the first isolate of the last line that nothing has ended yet; the text's length where there is none."""
    return next(iter(_isolates(text)[1]), len(text))


def _isolates(text: str) -> tuple[list[int], list[int]]:
    """The places of the isolates that are ended within their line, and of what ends them; and of those that are open."""
    found: list[int] = []
    opened: list[int] = []
    for place in _ISOLATES.finditer(text):
        if place[0] == "\n":
            opened.clear()
        elif place[0] != _POP_ISOLATE:
            opened.append(place.start())
        elif opened:
            found += [opened.pop(), place.start()]
    return found, opened


def _joins(text: str, at: int) -> bool:
    """A joiner has a letter of a script that uses joiners beside it, and is the first of its kind there."""
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    return before not in JOINERS and (_uses_joiners(before) or _uses_joiners(after))


def _selects(base: str, selector: str) -> bool:
    """A variation selector stands behind a character that has variants of its kind."""
    if selector <= "\u180f":
        return _within(base, _MONGOLIAN) and unicodedata.category(base) in ("Lo", "Lm")
    if "\ufe00" <= selector <= "\ufe02":
        return unicodedata.category(base) == "Sm" or _is_han(base)
    return selector >= "\U000e0100" and _is_han(base)


def _is_han(character: str) -> bool:
    return _within(character, _HAN) and unicodedata.category(character) == "Lo"


def _uses_joiners(character: str) -> bool:
    return (
        _within(character, _USE_JOINERS)
        and unicodedata.category(character) in _LETTERS
        and character not in "\u17b4\u17b5"  # Khmer's vowels that are not written
        and not MAY_BELONG.match(character)
    )


def _within(character: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    if not character:
        return False
    at = bisect_right(ranges, ord(character), key=lambda one: one[0]) - 1
    return at >= 0 and ord(character) <= ranges[at][1]


@cache
def _emoji() -> re.Pattern[str]:
    """An emoji, up to four of them joined, a keycap or a flag. Longer chains would be drawn wider than they are counted."""
    signs = "".join(f"{chr(first)}-{chr(last)}" for first, last in _EMOJI)
    one = f"[{signs}](?:[\U0001f3fb-\U0001f3ff]|[\ufe0e\ufe0f])?"
    flags = "|".join("".join(chr(0xE0000 + ord(letter)) for letter in name) for name in _FLAGS)
    return re.compile(f"\U0001f3f4(?:{flags})\U000e007f|[0-9#*]\ufe0f\u20e3|{one}(?:[\u200c\u200d]{one}){{,3}}")
