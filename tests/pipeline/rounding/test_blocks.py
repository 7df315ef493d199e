"""Blocks hold what ggml holds, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.format import ggml
from pipeline.rounding.blocks import FORMATS, Blocks, Format, pack, values
from tests.fixtures.generated import runs


def some_blocks(form: Format, seed: int, blocks: int = 2, rows: int = 3) -> Blocks:
    """Any numbers that the format can hold."""
    rng = np.random.default_rng(seed)
    n = blocks * form.kind.block
    groups = n // form.group

    def halves() -> np.ndarray:  # type: ignore[type-arg]
        return (rng.standard_normal((rows, blocks)) * 10 ** rng.uniform(-6, 3, (rows, blocks))).astype(np.float16)

    integers = (lambda low: rng.integers(low, form.top + 1, (rows, groups)).astype(np.int16)) if form.top else (lambda low: None)
    return Blocks(
        rng.integers(0, len(form.levels), (rows, n)).astype(np.uint8),
        halves(),
        halves() if form.offset else None,
        integers(0 if form.offset else -128),
        integers(0) if form.offset else None,
    )


@pytest.mark.generated
@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=runs(20), deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_values_are_ggmls_to_the_bit(name: str, seed: int) -> None:
    form = FORMATS[name]
    blocks = some_blocks(form, seed)
    raw = pack(blocks, form)
    assert ggml.valid(raw, form.kind)
    said = ggml.to_float(raw, form.kind, blocks.codes.shape[1])
    ours = values(blocks, form)
    assert np.array_equal(ours, said)
