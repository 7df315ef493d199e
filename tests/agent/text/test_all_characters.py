"""The tables of ``display``, held against what Python says of every character: its name and its category."""

from __future__ import annotations

import re
import unicodedata

from rich._emoji_codes import EMOJI

from agent.text import display, reveal, verbatim

# All characters with a name, but for the middle of the long runs of ideographs and syllables, and the planes of them alone.
_PARTS = (
    (0, 0x3500), (0x4D00, 0x5000), (0x9F00, 0xAC10), (0xD780, 0xD800), (0xF900, 0x17000), (0x1B000, 0x20100), (0x2F800, 0x2FA20),
    (0x30000, 0x30100), (0xE0000, 0xE0200),
)  # fmt: skip
_CODES = [code for first, end in _PARTS for code in range(first, end)]
_NAMES = {sign: name for sign in map(chr, _CODES) if (name := unicodedata.name(sign, ""))}
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp", "Cn", "Co")
_HAN = re.compile("CJK (UNIFIED|COMPATIBILITY) IDEOGRAPH-")
# Without ink, although their category does not say so.
_BLANK = re.compile(
    "VARIATION SELECTOR|HANGUL .*FILLER|KHITAN .*FILLER|VOWEL INHERENT|GRAPHEME JOINER|BRAILLE PATTERN BLANK|NULL NOTEHEAD"
    "|HIEROGLYPH (FULL|HALF) BLANK"
)
# The scripts that use joiners: whose letters join, which have a virama, and some between them in Unicode.
_JOINING = re.compile(
    "(COMBINING |EXTENDED )?(ADLAM|AHOM|ARABIC(?! MATHEMATICAL)|BALINESE|BATAK|BENGALI|BHAIKSUKI|BINDU|BRAHMI|CHAKMA|"
    "CHORASMIAN|DEVANAGARI|DIVES AKURU|DOGRA|GRANTHA|GUJARATI|GUNJALA GONDI|GURMUKHI|GURUNG KHEMA|HANIFI ROHINGYA|JAVANESE|"
    "KAITHI|KANNADA|KAWI|KHAROSHTHI|KHMER|KHOJKI|KHUDAWADI|MALAYALAM|MANDAIC|MANICHAEAN|MASARAM GONDI|MEETEI MAYEK|MODI|"
    "MONGOLIAN|MYANMAR|NANDINAGARI|NEWA|NKO|OLD UYGHUR|ORIYA|PHAGS-PA|PSALTER PAHLAVI|SAURASHTRA|SHARADA|SIDDHAM|SINHALA|"
    "SOGDIAN|SOYOMBO|SUNDANESE|SYLOTI NAGRI|SYRIAC|TAI THAM|TAKRI|TAMIL|TELUGU|TIRHUTA|TULU-TIGALARI|ZANABAZAR SQUARE|"
    "MAHAJANI|MAKASAR|MARCHEN|MULTANI|SAMARITAN|SORA SOMPENG|THAANA|TOLONG SIKI|WARANG CITI)[ -]"
)
_LETTERS = ("Lo", "Lm", "Ll", "Lu", "Mn", "Mc", "Nd")
_INK = {sign for sign, name in _NAMES.items() if unicodedata.category(sign) not in _HIDDEN and not _BLANK.search(name)}
_SOME = sorted(_INK)[::50]
_EMOJI = {sign for sign in EMOJI.values() if len(sign) == 1} & _INK


def _kept(texts: dict[str, str]) -> set[str]:
    """The signs whose texts ``display`` leaves as they are."""
    shown = display("\n".join(texts.values()), lines=True).split("\n")
    return {sign for (sign, text), one in zip(texts.items(), shown, strict=True) if one == text}


def test_a_character_is_shown_unless_it_has_no_ink() -> None:
    for sign in map(chr, (*_CODES, 0xE0FFF, 0xF0000, 0x10FFFF)):
        shown = reveal(sign)
        if sign in _INK:
            assert shown == sign
        elif ord(sign) < 0x80:
            assert unicodedata.name(shown).startswith("SYMBOL FOR ")
        else:
            assert shown == f"<U+{ord(sign):04X}>"


def test_control_pictures_name_what_they_stand_for() -> None:
    assert reveal("".join(map(chr, range(0x20)))) == "␀␁␂␃␄␅␆␇␈␉␊␋␌␍␎␏␐␑␒␓␔␕␖␗␘␙␚␛␜␝␞␟"
    assert reveal("\x7f") == "␡"


def test_half_of_a_surrogate_pair_is_a_byte_where_python_made_it_of_one() -> None:
    for code in range(0xD800, 0xE000):
        try:
            byte = chr(code).encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            shown = f"<U+{code:04X}>"
        else:
            shown = f"<{byte.hex().upper()}>"
        assert reveal(chr(code)) == verbatim(chr(code)) == display(chr(code)) == shown


def test_joiners_stay_beside_letters_of_the_scripts_that_use_them_and_of_no_others() -> None:
    uses = {s for s in _INK if _JOINING.match(_NAMES[s]) and unicodedata.category(s) in _LETTERS}
    for text in ("{}\u200ca", "a\u200d{}"):
        assert _kept({sign: text.format(sign) for sign in _INK - _EMOJI}) == uses


def test_each_script_with_a_virama_uses_joiners_but_those_where_it_only_takes_a_vowel_away() -> None:
    viramas = [name for sign, name in _NAMES.items() if unicodedata.combining(sign) == 9 and not _JOINING.match(name)]
    assert {name.split()[0] for name in viramas} <= {"THAI", "LAO", "TIBETAN", "TAGALOG", "HANUNOO", "TIFINAGH", "REJANG"}


def test_selectors_stay_behind_characters_with_variants_of_their_kind() -> None:
    han = {sign for sign in _INK if _HAN.match(_NAMES[sign])}
    mongolian = {s for s in _INK if _NAMES[s].startswith("MONGOLIAN LETTER") and unicodedata.category(s)[0] == "L"}
    mathematical = {sign for sign in _INK if unicodedata.category(sign) == "Sm"}
    for selectors, bases in (
        ("\u180b\u180c\u180d\u180f", mongolian),
        ("\ufe00\ufe01\ufe02", han | mathematical),
        ("\ufe03\ufe08\ufe0d\u2066\u2067\u2068\u2069\U000e0020\U000e007f", set()),
        ("\U000e0100\U000e0101\U000e01ef", han),
    ):
        beside = {chr(ord(sign) + step) for sign in bases for step in (-1, 1)} & _INK
        for selector in selectors:
            assert _kept({sign: sign + selector for sign in {*_SOME, *bases, *beside}}) == bases


def test_nothing_belongs_to_a_character_that_is_hidden_itself() -> None:
    for sign in set(_NAMES) - _INK - set("\u200c\u200d\u2066\u2067\u2068"):
        for follows in ("\u200c", "\u200d", "\u180b", "\ufe00", "\ufe0f", "\U000e0100"):
            assert display(sign + follows) == reveal(sign + follows)


def test_every_emoji_that_rich_knows_stays_as_it_is() -> None:
    emoji = {sign for sign in EMOJI.values() if not any(unicodedata.category(part) == "Cn" for part in sign)}
    assert len(emoji) > 2000
    assert _kept({sign: sign for sign in emoji}) == emoji
    for selector in "\ufe0e\ufe0f":
        assert _kept({sign: f"{sign}\u200c{sign}{selector}" for sign in _EMOJI}) == _EMOJI


def test_signs_that_are_taken_for_emoji_begin_and_end_with_emoji() -> None:
    kept = _kept({sign: f"{sign}\ufe0f" for sign in _INK})
    for before, sign, after in zip(signs := sorted(_INK), signs[1:], signs[2:], strict=False):
        if sign in kept and not (before in kept and after in kept):
            new = sign > "\U0001fa00" and unicodedata.east_asian_width(sign) == "W"  # rich does not know the newest
            assert sign in _EMOJI or new
