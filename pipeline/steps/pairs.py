"""The difference between two files that were measured apart, on the same windows: paired, so that hard windows cancel out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Windows = Sequence[Mapping[str, Any]]  # the field ``per_window`` of `sprig evaluate --json`

Measured = tuple[float, float | None]  # a value and its standard error, None where there is one window only


def paired(own: Windows, first: Windows, figure: Literal["kld", "nll"], domain: str | None = None) -> Measured | None:
    """Mean difference of a figure over the tokens, own less first, and its standard error over windows.

    It is the ratio of two sums over windows, its error that of the linearized ratio (Cochran, Sampling Techniques, chapter 6).

    Args:
        domain: of the windows that count; None takes all.

    Returns:
        None where the two have not the same windows, or one has no such figure.
    """
    if [(w["domain"], w["tokens"]) for w in own] != [(w["domain"], w["tokens"]) for w in first]:
        return None
    pairs = [(a, b) for a, b in zip(own, first, strict=True) if domain in (None, a["domain"])]
    if not pairs or any(one[figure] is None for pair in pairs for one in pair):
        return None
    tokens = [a["tokens"] for a, _ in pairs]
    sums = [(a[figure] - b[figure]) * a["tokens"] for a, b in pairs]
    mean, n = sum(sums) / sum(tokens), len(pairs)
    if n < 2:
        return mean, None
    residuals = sum((s - mean * t) ** 2 for s, t in zip(sums, tokens, strict=True))
    return mean, math.sqrt(n / (n - 1) * residuals) / sum(tokens)
