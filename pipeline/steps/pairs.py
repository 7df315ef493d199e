"""The difference between two files that were measured apart, on the same windows: paired, so that hard windows cancel out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from pipeline.evaluate.ratio import ratio

Windows = Sequence[Mapping[str, Any]]  # the field ``per_window`` of `sprig evaluate --json`

Measured = tuple[float, float | None]  # a value and its standard error, None where there is one window only


def paired(own: Windows, first: Windows, figure: Literal["kld", "nll"], domain: str | None = None) -> Measured | None:
    """Mean difference of a figure over the tokens, own less first, and its standard error over windows.

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
    tokens = np.array([a["tokens"] for a, _ in pairs], np.float64)
    return ratio(np.array([a[figure] - b[figure] for a, b in pairs]) * tokens, tokens)
