"""Untrusted text on its way through a template, in characters that no template writes: its shadow.

A template is code that compares, splits and joins. If a user's text went through it as it is, ``</think>`` in a question would
be taken for the end of a thought, and afterwards nobody could tell the template's ``<|im_end|>`` from the user's. So every
character but white space is moved to the private plane 15 of Unicode, and moved back when the text comes out. White space
stays, because templates trim. What lies above plane 0 becomes two, as in UTF-16: the places of its halves are free there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from agent.messages import Segment

_FIRST = 0xF0000  # plane 15 stands for plane 0
_UNKNOWN = 0xFFFD
_HALF = re.compile("[\\ud800-\\udfff]")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_REFERENCE = re.compile(r"#(/[A-Za-z0-9_.$-]{1,64})*\Z")
_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
_FORMATS = frozenset({
    "date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uri-reference", "uuid", "json-pointer",
    "regex",
})  # fmt: skip


class _Shadows(dict[int, str]):
    """code point -> its shadow; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        known = _UNKNOWN if code >= _FIRST or 0xD800 <= code < 0xE000 else code
        if chr(known).isspace():
            moved = chr(known)
        elif known < 0x10000:
            moved = chr(_FIRST + known)
        else:
            high, low = divmod(known - 0x10000, 0x400)
            moved = chr(_FIRST + 0xD800 + high) + chr(_FIRST + 0xDC00 + low)
        self[code] = moved
        return moved


class _Originals(dict[int, int]):
    """The inverse, but for what became two."""

    def __missing__(self, code: int) -> int:
        self[code] = code - _FIRST if _FIRST <= code < _FIRST + 0x10000 else code
        return self[code]


_SHADOWS, _ORIGINALS = _Shadows(), _Originals()


def shadow(text: str) -> str:
    """The shadow of untrusted text. Surrogates, and what is in the private planes already, become U+FFFD."""
    return text.translate(_SHADOWS)


def unshadow(text: str) -> str:
    """The text that casts this shadow; trusted characters are left alone, halves of a character become U+FFFD."""
    text = text.translate(_ORIGINALS)
    if not _HALF.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_plain(name: str) -> bool:
    """Whether a name is made of letters, digits, ``_``, ``.`` and ``-``, at most 64: no mark of any template is."""
    return _NAME.match(name) is not None


def plain_or_shadow(name: str) -> str:
    """A name as it is when it is plain; otherwise its shadow."""
    return name if is_plain(name) else shadow(name)


def woven(segments: Iterable[Segment]) -> str:
    """Segments as one text: the trusted ones as they are, the shadows of the others."""
    return "".join(_clean(s.text) if s.trusted else shadow(s.text) for s in segments)


def _clean(text: str) -> str:
    return "".join(c if ord(c) < _FIRST and not 0xD800 <= ord(c) < 0xE000 else "\ufffd" for c in text)


_RUN = re.compile(r"[\s\U000f0000-\U000fffff]+")  # shadows, and white space, which may belong to them
_SHADOWED = re.compile(r"[\U000f0000-\U000fffff]")
# Python's repr writes private characters as escapes. No shadow contains a backslash, so only repr can have written these.
_REPR = re.compile(r"\\U(000f[0-9a-f]{4})")


def segments(text: str) -> list[Segment]:
    """A rendered text, taken apart. White space beside untrusted text goes with it, as a tokenizer would have it."""
    if "\\U000f" in text:
        text = _REPR.sub(lambda m: chr(int(m[1], 16)), text)
    text = _HALF.sub("\ufffd", text)
    parts: list[Segment] = []
    done = 0
    for run in _RUN.finditer(text):
        if not _SHADOWED.search(run.group()):
            continue
        if run.start() > done:
            parts.append(Segment(text[done : run.start()], True))
        parts.append(Segment(unshadow(run.group()), False))
        done = run.end()
    if done < len(text):
        parts.append(Segment(text[done:], True))
    return parts


def shadow_value(value: Any) -> Any:
    """A JSON value with every string shadowed, and keys that are no plain names."""
    if isinstance(value, str):
        return shadow(value)
    if isinstance(value, Mapping):
        return {plain_or_shadow(str(k)): shadow_value(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [shadow_value(v) for v in value]
    # Python refuses to write integers of thousands of digits.
    return shadow(f"{value:#x}") if isinstance(value, int) and value.bit_length() > 4096 else value


def shadow_schema(schema: Any, key: str = "") -> Any:
    """A JSON Schema with its texts shadowed. Types, formats, references and plain names stay, for templates read them."""
    if isinstance(schema, str):
        structural = (
            (key == "type" and schema in _TYPES)
            or (key == "format" and schema in _FORMATS)
            or (key == "$ref" and _REFERENCE.match(schema))
            or (key == "required" and _NAME.match(schema))
        )
        return schema if structural else shadow(schema)
    if isinstance(schema, Mapping):
        return {_schema_key(str(k)): shadow_schema(v, str(k)) for k, v in schema.items()}
    if isinstance(schema, list | tuple):
        return [shadow_schema(v, key if key in ("type", "required") else "") for v in schema]
    return shadow_value(schema)


def _schema_key(key: str) -> str:
    return key if key.startswith("$") and _NAME.match(key[1:]) else plain_or_shadow(key)


# What json.dumps escaped, what it did not know to be text (shadowed characters), and what ensure_ascii is about.
_ESCAPED = re.compile(r"\\(?:u[0-9a-f]{4}|.)|[\U000fd800-\U000fdbff][\U000fdc00-\U000fdfff]|[\U000f0000-\U000fffff]")
_CUT = re.compile(r"[\U000fd800-\U000fdfff]\Z")  # a character that the template cut in two
_NOT_ASCII = re.compile(r"[^\x00-\x7f\U000f0000-\U000fffff]")


def tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON without HTML escapes (which jinja2's own filter has), where shadowed text stays shadowed, its escapes too."""

    def escape(match: re.Match[str]) -> str:
        found = match.group()
        if found[0] == "\\":
            return shadow(found)
        plain = unshadow(found)
        quoted = json.dumps(plain, ensure_ascii=ensure_ascii)[1:-1]
        return found if quoted == plain or _CUT.match(found) else shadow(quoted)

    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    text = _ESCAPED.sub(escape, text)
    return _NOT_ASCII.sub(lambda m: json.dumps(m.group())[1:-1], text) if ensure_ascii else text
