"""Numbers in few cells."""

from __future__ import annotations

import math

from rich.cells import cell_len, set_cell_size

_LONGEST = 28  # cells of a name


def bar(part: float, cells: int) -> str:
    """How much is done: ``▰▰▰▱▱``. It is full only when all is done."""
    full = int(_whole(part) * cells)
    return "▰" * full + "▱" * (cells - full)


def percent(part: float) -> str:
    """``15 %``; 100 only when all is done."""
    return f"{int(_whole(part) * 100)} %"


def tokens(count: int, unit: int = 1000) -> str:
    """A number of tokens in at most four cells up to a billion: ``987``, ``1.2k``, ``12k``, ``1.2M``."""
    if count < 1000:
        return str(max(0, count))
    for factor, sign in ((unit, "k"), (unit**2, "M"), (unit**3, "G")):
        value = count / factor
        if value < 9.95 and count % factor:
            return f"{value:.1f}{sign}"
        if value < 999.5:
            break
    return f"{value:.0f}{sign}"


def size(count: int) -> str:
    """A number of bytes: ``386 MB``."""
    from agent.files import human_size  # which brings much that the first paint does not need

    return human_size(count)


def seconds_left(seconds: float | None) -> str:
    """`` 6 s left``, as wide as ``12 s left``; "" when it is not known."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 99.5:
        return f"{max(0, math.ceil(seconds - 0.5)):2} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 5970 else f"{seconds / 3600:.0f} h left"


def short(name: str) -> str:
    """A name in at most 28 cells."""
    name = " ".join(name.split())
    return name if cell_len(name) <= _LONGEST else set_cell_size(name, _LONGEST - 1).rstrip() + "…"


def _whole(part: float) -> float:
    return max(0.0, min(1.0, part)) if math.isfinite(part) else 0.0
