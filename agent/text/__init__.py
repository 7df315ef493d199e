"""Untrusted text on its way out: ``display`` for a screen, ``reveal`` for what a person approves, ``verbatim`` for copies, files
and pipes, ``json_text`` for a script. What a model, a file or a server says must not move a cursor or hide a letter.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from agent.text.joiners import CONTINUES, JOINERS, MAY_BELONG, belonging, open_isolate

# Invisible, or blank, although Unicode files them under letters and marks: combining grapheme joiner, Hangul fillers,
# Khmer inherent vowels, Mongolian and plain variation selectors; or under symbols: Braille's blank, Egyptian blanks, Khitan's
# filler, a note without a head.
_INVISIBLE = frozenset(
    {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0}
    | {0x13441, 0x13442, 0x16FE4, 0x1D159}
    | {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
)
# Controls, format characters (bidirectional, zero-width, tags), lone surrogates, line separators, unassigned, private use.
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Cn", "Co"})
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_KEYCAPS = tuple("0123456789#*")  # of ASCII, what an invisible character may follow
_MOST_HELD = 400  # characters of a stream that wait for what may belong to them


def _is_hidden(code: int) -> bool:
    return code in _INVISIBLE or unicodedata.category(chr(code)) in _HIDDEN_CATEGORIES


class _Signs(dict[int, str]):
    """code point -> itself, or the sign for it where it is hidden; filled as characters are met."""

    def __init__(self, sign: Callable[[int], str], known: Mapping[int, str]) -> None:
        super().__init__(known)
        self._sign = sign

    def __missing__(self, code: int) -> str:
        shown = self[code] = self._sign(code) if _is_hidden(code) else chr(code)
        return shown


def _picture(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's own pictures of the control characters: U+241B for ESC
    if code == 0x7F:
        return "\u2421"
    if 0xDC80 <= code <= 0xDCFF:
        return f"<{code - 0xDC00:02X}>"  # a byte that was not UTF-8 (PEP 383)
    return f"<U+{code:04X}>"


_ONE_LINE = _Signs(_picture, {})
_LINES = _Signs(_picture, {0x0A: "\n", 0x09: "\t"})
_JSON = _Signs(lambda code: json.dumps(chr(code))[1:-1], {0x0A: "\n", 0x7F: "\\u007f"})


def display(text: str, *, lines: bool = False) -> str:
    """Text that is safe on a screen: what a terminal would obey or hide is shown as a visible sign.

    Invisible characters that are part of the writing stay, each where Unicode has a use for it: joiners within a Persian word,
    a family of emoji, isolates that end within their line. Twice gives the same as once.

    Args:
        text: anything, from anywhere.
        lines: keep newlines and tabs as they are; otherwise they become U+240A and U+2409 and the result is one line.
    """
    if text.isascii() and text.isprintable():
        return text
    table = _LINES if lines else _ONE_LINE
    if text.isascii() or MAY_BELONG.search(text) is None or not (kept := belonging(text)):
        return text.translate(table)
    pieces = [text[: kept[0]].translate(table)]
    pieces += [text[at] + text[at + 1 : end].translate(table) for at, end in pairwise([*kept, len(text)])]
    return "".join(pieces)


def reveal(text: str) -> str:
    """Text on one line with nothing invisible in it, joiners neither: for what a person says yes to.

    Each character is shown alike wherever it stands: a part of a text is shown as it is in the whole.
    """
    return text if text.isascii() and text.isprintable() else text.translate(_ONE_LINE)


def shown_characters(text: str) -> list[str]:
    """What ``display`` makes of each character of a text, newlines and tabs as they are."""
    kept = set(belonging(text))
    return [char if at in kept else char.translate(_LINES) for at, char in enumerate(text)]


def verbatim(text: str) -> str:
    """Text as it is said, for a copy, a file or a pipe: of control characters alone, but newline and tab, signs are left."""
    return _CONTROLS.sub(lambda found: _picture(ord(found[0])), text)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON that is safe to print: what is not visible in it is written as an escape, and means the same."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, default=str).translate(_JSON)


class DisplayStream:
    """``display`` for a text that comes in pieces: together they show what the whole would.

    What the next piece may belong to waits for it: the last character, and an isolate that is still open.
    """

    def __init__(self) -> None:
        self._held = ""

    @property
    def waiting(self) -> str:
        """How what waits is shown if nothing more comes; within one line."""
        return display(self._held)

    def feed(self, piece: str) -> str:
        """What can be shown by now, newlines and tabs as they are."""
        text = self._held + piece
        if text.isascii() and not text.endswith(_KEYCAPS):  # nearly always
            self._held = ""
            return display(text, lines=True)
        end = _settled(text)
        self._held = text[end:]
        return display(text[:end], lines=True)

    def end(self) -> str:
        """What waited, when nothing more comes."""
        held, self._held = self._held, ""
        return display(held, lines=True)


def _settled(text: str) -> int:
    """How much of a text is shown alike whatever comes after it."""
    end = len(text) if text.isascii() else open_isolate(text)
    least = max(0, len(text) - _MOST_HELD)
    for at in range(end - 1, least - 1, -1):
        if (text[at].isascii() and text[at] not in _KEYCAPS) or text[at] == "\u2069":
            return at + 1  # nothing belongs to these
        if not CONTINUES.match(text, at) and text[at - 1] not in JOINERS:
            return at
    return least


def shortened(text: str, most: int) -> str:
    """At most so many characters of a text; an ellipsis ends it where some are missing."""
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def one_line(text: object, most: int = 300) -> str:
    """Somebody else's message on one line, safe to show, of about so many characters at most."""
    return display(shortened(display(" ".join(str(text).split())), most))


def brief(value: object, most: int = 80) -> str:
    """An untrusted value for a message: its ``repr`` on one line, safe to show, of about so many characters at most."""
    try:
        text = repr(value)
    except ValueError:  # Python prints no integer of more than 4,300 digits
        return "a number of thousands of digits"
    return display(shortened(display(text[: most + 1]), most))
