"""How a model did on a device: what `sprig ask --json` said there. A stranger says it, so nothing of it is taken on trust."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from agent.errors import SprigError
from agent.text import display, shortened

_MOST_ANSWER = 500  # characters
_MOST_NUMBER = 1e15  # NaN and infinity are no numbers of anything


@dataclass(frozen=True, slots=True)
class SmokeTest:
    """An answer of the model on the device.

    Attributes:
        answer: what it said; untrusted text.
        reads, writes: tokens per second; 0 when too few were needed to tell.
        first: seconds from the question to the first token, the model's loading aside.
        memory: bytes that the model's process held.
    """

    answer: str
    reads: float
    writes: float
    first: float
    memory: int


def read_smoke_test(text: str, complaint: str = "") -> SmokeTest:
    """What `sprig ask --json` printed, among what else stands there. SprigError when the model gave no answer.

    ``complaint`` is the last line of its standard error.
    """
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                continue
            return _smoke_test(found)
    raise SprigError(f"its sprig command gave no answer{f': {complaint}' if complaint else ''}")


def _smoke_test(found: dict[str, Any]) -> SmokeTest:
    error, usage = found.get("error"), found.get("usage")
    if isinstance(error, dict):
        error = error.get("message")
    if error or not isinstance(usage, dict):
        raise SprigError(display(shortened(str(error or "it gave no answer"), 300)))

    def number(name: str) -> float:
        value = usage.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return 0.0
        return float(value) if 0 <= value < _MOST_NUMBER else 0.0

    def rate(tokens: str, seconds: str) -> float:
        return number(tokens) / number(seconds) if number(seconds) else 0.0

    if not number("generated_tokens"):
        raise SprigError("it wrote nothing")
    answer = found.get("text")
    return SmokeTest(
        shortened(answer, _MOST_ANSWER) if isinstance(answer, str) else "",
        rate("prefill_tokens", "prefill_seconds"),
        rate("generated_tokens", "decode_seconds"),
        number("first_token_seconds"),
        int(number("memory")),
    )
