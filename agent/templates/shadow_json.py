"""JSON of values whose texts are shadowed: what JSON escapes in a text is found in its shadow, too."""

from __future__ import annotations

import json
import re
from typing import Any

from agent.templates.shadow import shadow, unshadow

# What json.dumps escaped, what it did not know to be text (shadowed characters), and what ensure_ascii is about.
_ESCAPED = re.compile(r"\\(?:u[0-9a-f]{4}|.)|[\U000fd800-\U000fdbff][\U000fdc00-\U000fdfff]|[\U000f0000-\U000fffff]")
_HALF = re.compile(r"[\U000fd800-\U000fdfff]\Z")  # a character that the template cut in two
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
        return found if quoted == plain or _HALF.match(found) else shadow(quoted)

    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    text = _ESCAPED.sub(escape, text)
    return _NOT_ASCII.sub(lambda m: json.dumps(m.group())[1:-1], text) if ensure_ascii else text
