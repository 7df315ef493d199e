"""The mean over tokens of windows that differ in length, with its standard error."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def ratio(sums: npt.NDArray[np.float64], counts: npt.NDArray[np.float64]) -> tuple[float, float | None]:
    """sum(sums) / sum(counts) and its standard error over windows, that of the linearized ratio (Cochran, Sampling Techniques,
    chapter 6).

    Args:
        sums, counts: float64 [windows], of each window.

    Returns:
        The error is None where there is one window only.
    """
    n, total = len(sums), float(counts.sum())
    found = float(sums.sum()) / total
    if n < 2:
        return found, None
    residuals = sums - found * counts
    return found, math.sqrt(n / (n - 1) * float(residuals @ residuals)) / total
