"""Argument values as models write them: JSON, and what small models make of it (Python literals, trailing commas, bare words).

Everything here is bounded: no value nests deeper than ``MAX_DEPTH`` levels, no text makes a reader recurse further or take more
than linear time. Python's own ``ast`` is not used: it can be made to use up the stack or the memory.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any, NoReturn, TypeVar

_T = TypeVar("_T")

MAX_DEPTH = 64  # levels of objects and lists, the outermost counted
TYPES: dict[type, str] = {
    NoneType: "null", bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object",
}  # fmt: skip
MAX_CHARACTERS = 1_000_000  # of one call's arguments


class BadValueError(ValueError):
    """A text is not the value that it should be; ``str(error)`` says why in a few words."""


def type_of(value: object) -> str:
    """The JSON type of a value; empty for what JSON does not have."""
    return TYPES.get(type(value), "")


def read_json(text: str, levels: int = MAX_DEPTH) -> Any:
    """One JSON value. Line breaks may stand in strings as they are; a key may not come twice, a number must be finite.

    Raises:
        BadValueError: it is not that, or nests too deep.
    """
    try:
        value = _DECODER.decode(text.strip())
    except RecursionError:
        raise BadValueError(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise BadValueError(f"bad JSON: {error.msg} at character {error.pos}") from None
    except BadValueError:
        raise
    except ValueError:  # more digits than Python's int() takes
        raise BadValueError("a number has too many digits") from None
    return checked(value, levels)


def read_loose(text: str, quote: str = "", *, words: bool = False, levels: int = MAX_DEPTH) -> Any:
    """One value in JSON, as a Python literal, or between.

    Args:
        text: what was written.
        quote: a mark that encloses strings without escapes, like Gemma's; besides ``"`` and ``'``.
        words: whether a word without quotes is a string.
        levels: how deep it may nest.

    Raises:
        BadValueError: it cannot be read even so.
    """
    reader = _Loose(text, quote, words, levels)
    value = reader.value(0)
    reader.end()
    return checked(value, levels)


def read_sloppy_json(text: str, levels: int = MAX_DEPTH) -> Any:
    """JSON, or text that is close enough to it.

    Raises:
        BadValueError: with what is wrong with it as JSON.
    """
    try:
        return read_json(text, levels)
    except BadValueError as error:
        try:
            return read_loose(text, levels=levels)
        except BadValueError:
            raise error from None


def finite(value: Any) -> Any:
    """The same value, with null for numbers that JSON does not know."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_bare(key: str) -> bool:
    """Whether a key is written without quotes where that is the style."""
    return _PLAIN_KEY.fullmatch(key) is not None


def completed(text: str) -> str:
    """The same text, with the brackets that are still open in it closed."""
    still: list[str] = []
    for found in _OUTLINE.finditer(text):
        if found[0] in _CLOSING:
            still.append(_CLOSING[found[0]])
        elif still and found[0] == still[-1]:
            still.pop()
    return text + "".join(reversed(still))


def read_keywords(text: str, order: Sequence[str], *, words: bool = False) -> dict[str, Any]:
    """The arguments of a Python call, without its parentheses.

    Args:
        text: like ``a="x", b=[1, 2]``.
        order: the names that arguments without a name stand for.
        words: whether a word without quotes is a string, and a colon as good as ``=``.

    Raises:
        BadValueError: it cannot be read, a name comes twice, or there are more unnamed arguments than names.
    """
    reader = _Loose(text, "", words, MAX_DEPTH)
    found: dict[str, Any] = {}
    position = 0
    while not reader.over():
        name = reader.keyword()
        if not name:
            if position >= len(order):
                raise BadValueError("an argument has no name")
            name = order[position]
            position += 1
        if name in found:
            raise BadValueError(f"{name!r} comes twice")
        found[name] = reader.value(1)
        if not reader.skip(",") and not reader.over():
            reader.fail("a comma is missing")
    checked(found)
    return found


def checked(value: Any, levels: int = MAX_DEPTH) -> Any:
    """The same value, known to be one that JSON and UTF-8 can carry.

    Raises:
        BadValueError: it nests too deep or holds half of a surrogate pair.
    """
    level = [value]
    depth = 0
    while level:
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
                below.extend(item)
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str) and not item.isascii() and _SURROGATE.search(item):
                raise BadValueError("a string holds half of a surrogate pair")
        # Keys and scalars are one level below what holds them, but open none.
        depth += any(isinstance(item, (dict, list)) for item in level)
        if depth > levels:
            raise BadValueError(_TOO_DEEP)
        level = below
    return value


_TOO_DEEP = f"it nests deeper than {MAX_DEPTH} levels"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise BadValueError(f"the key {key[:40]!r} comes twice")
            seen.add(key)
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise BadValueError("a number is too large")
    return number


def _no_constant(name: str) -> NoReturn:
    raise BadValueError(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant, strict=False)

_PLAIN_KEY = re.compile(r"[A-Za-z_][\w.\-]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"\s*+")
_STRINGS = {
    '"': re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL),
    "'": re.compile(r"'([^'\\]*+(?:\\.[^'\\]*+)*+)'", re.DOTALL),
}
_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]*+)(\.[0-9]*+)?([eE][-+]?[0-9]++)?(?![\w.])")
_WORD = re.compile(r"[^\s,:=\[\](){}\"']++")
_BARE = re.compile(r"[^,\[\]{}]*+")
_KEYWORD = re.compile(r"([^\s,:=\[\](){}\"']++)\s*+=(?!=)")
_WORD_KEYWORD = re.compile(r"([^\s,:=\[\](){}\"']++)\s*+[=:](?!=)")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "\n": "", "/": "/", "\\": "\\", '"': '"', "'": "'"}
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_OUTLINE = re.compile(r"""\"(?:[^"\\]|\\.)*+"|'(?:[^'\\]|\\.)*+'|[][(){}]""", re.DOTALL)


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text

    def one(found: re.Match[str]) -> str:
        code = found[1] or found[2]
        if code:
            return chr(int(code, 16))
        return _ESCAPED.get(found[3], found[0])

    plain = _ESCAPE.sub(one, text)
    # Two \u escapes may make one character.
    return plain if plain.isascii() else plain.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


class _Loose:
    """Reads values from the start of a text on."""

    def __init__(self, text: str, quote: str, words: bool, levels: int) -> None:
        self._text = text
        self._at = 0
        self._quote = quote
        self._words = words
        self._levels = levels

    def value(self, depth: int) -> Any:
        self._space()
        text = self._string()
        if text is not None:
            return text
        character = self._text[self._at : self._at + 1]
        if character in _CLOSING and character:
            if depth >= self._levels:
                raise BadValueError(_TOO_DEEP)
            self._at += 1
            if character == "{":
                return _unique(self._items("}", lambda: self._pair(depth + 1)))
            return self._items(_CLOSING[character], lambda: self.value(depth + 1))
        return self._word() if self._words else self._scalar()

    def keyword(self) -> str:
        """The name before ``=``, taken; empty if there is none."""
        self._space()
        found = (_WORD_KEYWORD if self._words else _KEYWORD).match(self._text, self._at)
        if found:
            self._at = found.end()
            return found[1]
        start = self._at
        name = self._string()
        if name and (self.skip("=") or (self._words and self.skip(":"))):
            return name
        self._at = start
        return ""

    def skip(self, text: str) -> bool:
        """Whether ``text`` comes next; it is taken."""
        self._space()
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def over(self) -> bool:
        self._space()
        return self._at >= len(self._text)

    def end(self) -> None:
        if not self.over():
            self.fail("more follows")

    def fail(self, what: str) -> NoReturn:
        raise BadValueError(f"{what} at character {self._at}")

    def _space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        if found:
            self._at = found.end()

    def _string(self) -> str | None:
        if self._quote and self._text.startswith(self._quote, self._at):
            start = self._at + len(self._quote)
            end = self._text.find(self._quote, start)
            if end < 0:
                self.fail("a string does not end")
            self._at = end + len(self._quote)
            return self._text[start:end]
        pattern = _STRINGS.get(self._text[self._at : self._at + 1])
        if pattern is None:
            return None
        found = pattern.match(self._text, self._at)
        if found is None:
            self.fail("a string does not end")
        self._at = found.end()
        return _unescape(found[1])

    def _scalar(self) -> Any:
        number = _NUMBER.match(self._text, self._at)
        if number:
            self._at = number.end()
            return _number(number)
        word = _WORD.match(self._text, self._at)
        if word is None or word[0] not in _WORDS:
            self.fail("a value is missing")
        self._at = word.end()
        return _WORDS[word[0]]

    def _word(self) -> Any:
        found = _BARE.match(self._text, self._at)
        word = found[0].strip() if found else ""
        if not word:
            self.fail("a value is missing")
        if word in _WORDS:
            value: Any = _WORDS[word]
        elif number := _NUMBER.fullmatch(word):
            value = _number(number)
        elif word.lstrip("+-").lower() in ("nan", "inf", "infinity"):
            _no_constant(word)
        else:
            value = word
        self._at += len(found[0]) if found else 0
        return value

    def _items(self, closing: str, item: Callable[[], _T]) -> list[_T]:
        """What stands between commas, up to the closing bracket, which is taken."""
        found: list[_T] = []
        while not self.skip(closing):
            found.append(item())
            if not self.skip(","):
                if self.skip(closing):
                    break
                self.fail("a comma is missing")
        return found

    def _pair(self, depth: int) -> tuple[str, Any]:
        self._space()
        key = self._string()
        if key is None:
            word = _WORD.match(self._text, self._at) if self._words else None
            if word is None:
                self.fail("a key is missing")
            key = word[0]
            self._at = word.end()
        if not self.skip(":"):
            self.fail("a colon is missing")
        return key, self.value(depth)


def _number(found: re.Match[str]) -> int | float:
    if found[1] or found[2]:
        return _finite(found[0])
    try:
        return int(found[0])
    except ValueError:
        raise BadValueError("a number has too many digits") from None
