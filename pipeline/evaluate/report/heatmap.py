"""The error of each tensor: a row for each kind of weight, a column for each block, the darker the larger."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from pipeline.evaluate.report.axis import NOTHING, plain
from pipeline.evaluate.report.legend import heading
from pipeline.evaluate.report.svg import element, fitting, picture, width_of, words, write

_TOP, _BOTTOM, _RIGHT = 38.0, 58.0, 18.0
_ROW = 20.0
_FAINT = 0.06  # opacity of the smallest error
_BLOCK = re.compile(r"blk\.(\d{1,4})\.(.+?)(?:\.weight)?")
_STEPS = 8  # of the scale


def kind_of(name: str) -> str:
    """What a tensor is in each block: ``attn_q`` of ``blk.3.attn_q.weight``; one that is in none is a kind of its own."""
    block = _BLOCK.fullmatch(name)
    return block[2] if block else name.removesuffix(".weight")


def span_of(errors: Iterable[float]) -> tuple[float, float]:
    """The least and the largest of those that are not as good as zero: what the colours of plots that lie side by side span."""
    positive = [error for error in errors if error > NOTHING] or [1.0]
    return min(positive), max(positive)


def heatmap_svg(errors: Mapping[str, float], *, width: float = 760, title: str, span: tuple[float, float] | None = None) -> str:
    """The plot as an SVG document.

    Args:
        errors: at least one; name of a tensor, as in a GGUF -> its error, 0 or more. Colours follow the logarithm.
        width: in pixels; the height follows from the kinds of tensors.
        title: above the plot.
        span: the errors with the faintest and the strongest colour; by default the least and the largest here.
    """
    cells: dict[str, dict[int, float]] = {}
    for name, error in errors.items():
        place = _BLOCK.fullmatch(name)
        cells.setdefault(kind_of(name), {})[int(place[1]) if place else 0] = error
    blocks = max(max(row) for row in cells.values()) + 1
    low, high = span or span_of(errors.values())
    left = min(width / 3, max(width_of(kind) for kind in cells) + 24)
    wide = (width - _RIGHT - left) / blocks
    height = _TOP + _ROW * len(cells) + _BOTTOM
    parts = [heading(title, width)]
    for n, (kind, row) in enumerate(cells.items()):
        y = _TOP + _ROW * n
        parts.append(write(left - 10, y + 14, fitting(kind, left - 14), text_anchor="end"))
        for block, error in sorted(row.items()):
            note = element("title", words(f"{kind}, block {block}: {error:.3g}" if len(row) > 1 else f"{kind}: {error:.3g}"))
            box = {"x": left + wide * block, "y": y + 1, "width": max(wide - 1, 1.0), "height": _ROW - 2}
            parts.append(element("rect", note, **box, fill="var(--hot)", fill_opacity=f"{_strength(error, low, high):.2f}"))
    bottom = _TOP + _ROW * len(cells)
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if s * wide >= 26)
    for block in range(0, blocks, step):
        parts.append(write(left + wide * (block + 0.5), bottom + 15, block, text_anchor="middle", class_="soft"))
    parts += [write(12, bottom + 15, "block", class_="soft"), *_scale(low, high, width - _RIGHT, bottom + 30)]
    least, most = span_of(errors.values())
    return picture(width, height, parts, f"{title}: {len(errors)} tensors, errors from {least:.3g} to {most:.3g}")


def _strength(error: float, low: float, high: float) -> float:
    if error <= low or high <= low:
        return 1.0 if high <= low and error >= high else _FAINT
    return _FAINT + (1 - _FAINT) * math.log(error / low) / math.log(high / low)


def _scale(low: float, high: float, right: float, y: float) -> list[str]:
    """Which colour means what, ending at ``right``."""
    most, least = plain(float(f"{high:.2g}")), plain(float(f"{low:.2g}"))
    start = right - width_of(most) - 8 - 16 * _STEPS
    parts = [write(start - 8, y + 11, least, text_anchor="end", class_="soft")]
    for i in range(_STEPS):
        opacity = f"{_FAINT + (1 - _FAINT) * i / (_STEPS - 1):.2f}"
        parts.append(element("rect", x=start + 16 * i, y=y, width=15.0, height=14.0, fill="var(--hot)", fill_opacity=opacity))
    return [*parts, write(right, y + 11, most, text_anchor="end", class_="soft")]
