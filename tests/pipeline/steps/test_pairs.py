"""Differences of files that were measured apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pipeline.steps.pairs import paired


def windows(klds: list[float], tokens: list[int], domains: str = "aabb") -> list[dict[str, Any]]:
    return [{"domain": d, "tokens": n, "kld": k, "nll": 2 * k} for d, n, k in zip(domains, tokens, klds, strict=True)]


def test_the_mean_is_over_tokens_and_the_error_over_windows() -> None:
    own, first = windows([0.5, 0.1, 0.4, 0.2], [30, 10, 20, 20]), windows([0.1, 0.2, 0.3, 0.1], [30, 10, 20, 20])
    difference, tokens = np.array([0.4, -0.1, 0.1, 0.1]), np.array([30, 10, 20, 20])
    mean = float(difference @ tokens) / 80
    error = math.sqrt(4 / 3 * float((((difference - mean) * tokens) ** 2).sum())) / 80
    assert paired(own, first, "kld") == (pytest.approx(mean), pytest.approx(error))
    assert paired(own, first, "nll") == (pytest.approx(2 * mean), pytest.approx(2 * error))
    assert paired(own, first, "kld", "b") == (pytest.approx(0.1), pytest.approx(0.0))


def test_what_cannot_be_paired_is_none() -> None:
    one = windows([0.5, 0.1, 0.4, 0.2], [30, 10, 20, 20])
    assert paired(one, windows([0.5, 0.1, 0.4, 0.2], [30, 10, 20, 19]), "kld") is None
    assert paired(one, one[:3], "kld") is None
    assert paired(one, one, "kld", "c") is None
    assert paired([{**w, "kld": None} for w in one], one, "kld") is None
    assert paired(one[:1], windows([0.2], [30], "a"), "kld") == (pytest.approx(0.3), None)
