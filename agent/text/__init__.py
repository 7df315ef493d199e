"""Untrusted text: how it is shown. What a model, a file or a server says must not move a cursor or hide a letter."""

from __future__ import annotations

import unicodedata

# Invisible, or blank, although Unicode files them under letters and marks: combining grapheme joiner, Hangul fillers,
# Khmer inherent vowels, Mongolian and plain variation selectors (U+FE0E and U+FE0F only choose an emoji's style: kept).
_INVISIBLE = frozenset(
    {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0}
    | {*range(0xFE00, 0xFE0E), *range(0xE0100, 0xE01F0)}
)
# Controls, format characters (bidirectional, zero-width, tags), lone surrogates, line separators, unassigned.
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Cn"})


class _Shown(dict[int, str]):
    """code point -> how it is shown; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        if code in _INVISIBLE or unicodedata.category(chr(code)) in _HIDDEN_CATEGORIES:
            shown = _picture(code)
        else:
            shown = chr(code)
        self[code] = shown
        return shown


def _picture(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's own pictures of the control characters: U+241B for ESC
    if code == 0x7F:
        return "\u2421"
    if 0xDC80 <= code <= 0xDCFF:
        return f"<{code - 0xDC00:02X}>"  # a byte that was not UTF-8 (PEP 383)
    return f"<U+{code:04X}>"


_ONE_LINE = _Shown()
_LINES = _Shown({0x0A: "\n", 0x09: "\t"})


def display(text: str, *, lines: bool = False) -> str:
    """Text that is safe to print: every character that a terminal would obey or hide is shown as a visible sign.

    Args:
        text: anything, from anywhere.
        lines: keep newlines and tabs as they are; otherwise they become U+240A and U+2409 and the result is one line.
    """
    if text.isascii() and text.isprintable():
        return text
    return text.translate(_LINES if lines else _ONE_LINE)


def shortened(text: str, most: int) -> str:
    """At most so many characters of a text; an ellipsis ends it where some are missing."""
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def one_line(text: object, most: int = 300) -> str:
    """Somebody else's message on one line, safe to show, of at most so many characters."""
    return shortened(display(" ".join(str(text).split())), most)


def brief(value: object, most: int = 80) -> str:
    """An untrusted value for a message: its ``repr`` on one line, safe to show, of at most so many characters."""
    try:
        text = repr(value)
    except ValueError:  # Python prints no integer of more than 4,300 digits
        return "a number of thousands of digits"
    return shortened(display(text[: most + 1]), most)
