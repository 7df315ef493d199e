"""Why llama.cpp ended its process, in one line: the signal, and the most telling line of what it printed."""

from __future__ import annotations

import re

from agent.children.launch import cause
from agent.text import display, shortened

# From the most telling to the least.
_TELLING = (
    r"GGML_ASSERT\(.*|fatal error|Unexpected .*",
    r"tensor '.*' has invalid data",
    r"error loading model:\s*(.*)",
    r"what\(\):\s*(.*)",
    r".*\bout of memory\b.*|.*bad_alloc.*|.*failed to allocate.*",
    r"(?i).*\b(?:error|failed|invalid|missing|unknown)\b.*",
)


def last_words(status: int, log: str, failed: object = None) -> str:
    """One line that is safe to print, of an exit status (0 also where it still runs) and the end of what was printed.

    ``failed`` is what the process has said itself, in an orderly way.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = ""
    for pattern in _TELLING:
        # "failed to load model" comes last and says nothing that the line before it does not.
        found = [m for line in lines if (m := re.search(pattern, line)) and "failed to load model" not in line]
        if found:
            said = found[-1].group(found[-1].lastindex or 0)
            break
    said = said.replace("has invalid data", "holds NaN or infinity")  # which is all that llama.cpp calls so
    parts = [p for p in (cause(status), said or (lines[-1] if lines and not failed else "")) if p] or [str(failed or "no reason")]
    return shortened(display(" ".join("; ".join(parts).split())), 300)
