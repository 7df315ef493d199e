"""Secrets in a text that is to be written down: tokens, passwords, Authorization headers, credentials and queries of URLs."""

from __future__ import annotations

import os
import re
from functools import cache

_HIDDEN = "***"
_LEAST = 6  # characters; what is shorter stands in other words too
_NAME = r"[\w-]*(?:token|secret|passw(?:or)?d|api[_-]?key|access[_-]?key|signature|credentials?)"  # says that its value is one
_URL = r"(\b[a-z][a-z0-9+.-]*://"
_MASKS = (
    (r"\b((?:proxy-)?authorization|(?:set-)?cookie)(['\"]?\s*[:=]\s*)[^\r\n,}]+", rf"\1\2{_HIDDEN}"),
    (rf"\b({_NAME})(['\"]?\s*[:=]\s*['\"]?)[^\s'\",;&]+", rf"\1\2{_HIDDEN}"),
    (r"\b(bearer|basic)\s+[\w.~+/=-]+", rf"\1 {_HIDDEN}"),
    (r"\b(?:hf|sk|gh[pousr]|github_pat|xox[abp])[_-][\w-]{8,}", _HIDDEN),
    (_URL + r")[^/\s@?#]*@", rf"\1{_HIDDEN}@"),
    (_URL + r"[^\s?#'\"]*)\?[^\s#'\"]*", rf"\1?{_HIDDEN}"),
)
_known: set[str] = set()  # the secrets of this process; they only become more


def keep_secret(*values: str) -> None:
    """Let ``mask`` know these secrets, which no sign in a text would tell."""
    _known.update(value for value in values if len(value) >= _LEAST)


def mask(text: str) -> str:
    """The text with ``***`` for what looks like a secret, what ``keep_secret`` was told, and the environment's secrets."""
    named = (value for name, value in os.environ.items() if re.fullmatch(_NAME + r"\w*", name, re.IGNORECASE))
    for secret in sorted({*_known, *(value for value in named if len(value) >= _LEAST)}, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    for pattern, instead in _patterns():
        text = pattern.sub(instead, text)
    return text


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Compiled when the first line is written, which most commands never do."""
    return tuple((re.compile(pattern, re.IGNORECASE), instead) for pattern, instead in _MASKS)
