"""One hash for a set of named texts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def digest_of(texts: Mapping[str, str]) -> str:
    """SHA-256 in hexadecimal over names and texts in UTF-8, each with its length in front, in the order of the names."""
    found = hashlib.sha256()
    for name, text in sorted(texts.items()):
        for part in (name.encode(), text.encode()):
            found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()
