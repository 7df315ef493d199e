"""Scales apart from codes: what is split and joined is the same tensor, and other scales leave every code as it was."""

from __future__ import annotations

import numpy as np
import pytest

from agent.gguf.types import TYPES_BY_NAME
from pipeline.format import ggml
from pipeline.format.ggml import Bytes, Floats
from pipeline.tune.scales import ScaledCodes, has_scales, join, split

KINDS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"]
ROWS, LENGTH = 5, 512


def quantized(kind: str, seed: int = 0) -> Bytes:
    weights = np.random.default_rng(seed).normal(0, 0.02, (ROWS, LENGTH)).astype(np.float32)
    weights[0] += 0.01  # no two rows have the same offset
    weights[1, :32] = 0
    return ggml.quantize(weights, TYPES_BY_NAME[kind])


def weights_of(blocks: ScaledCodes) -> Floats:
    rows, n = blocks.scales.shape
    out = (blocks.codes.reshape(rows, n, -1) * blocks.scales[:, :, None]).reshape(rows, -1)
    if blocks.mins is not None and blocks.offsets is not None:
        steps = blocks.offsets.reshape(rows, n, -1) * blocks.mins[:, :, None]
        out += np.repeat(steps.reshape(rows, -1), LENGTH // blocks.offsets.shape[1], axis=1)
    return np.asarray(out, np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_scales_times_codes_are_the_weights(kind: str) -> None:
    raw = quantized(kind)
    blocks = split(raw, TYPES_BY_NAME[kind], LENGTH)
    stored = ggml.to_float(raw, TYPES_BY_NAME[kind], LENGTH)
    np.testing.assert_allclose(weights_of(blocks), stored, rtol=1e-5, atol=1e-8)
    assert blocks.codes.dtype == (np.int8 if TYPES_BY_NAME[kind].block == 32 else blocks.codes.dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_other_scales_leave_every_code(kind: str) -> None:
    raw, of = quantized(kind), TYPES_BY_NAME[kind]
    blocks = split(raw, of, LENGTH)
    np.testing.assert_array_equal(join(raw, of, blocks.scales, blocks.mins), raw)
    larger = join(raw, of, blocks.scales * 1.05, None if blocks.mins is None else blocks.mins * 0.9)
    again = split(larger, of, LENGTH)
    np.testing.assert_array_equal(again.codes, blocks.codes)
    np.testing.assert_array_equal(again.scales, (blocks.scales * 1.05).astype(np.float16))
    assert np.count_nonzero(larger != raw) <= blocks.scales.size * (2 if blocks.mins is None else 4)


def test_a_scale_that_float16_cannot_hold_is_refused() -> None:
    raw, kind = quantized("Q4_0"), TYPES_BY_NAME["Q4_0"]
    with pytest.raises(OverflowError, match="float16"):
        join(raw, kind, split(raw, kind, LENGTH).scales * np.float32(1e9), None)


def test_types_without_float16_scales_stay_as_they_are() -> None:
    assert not any(has_scales(TYPES_BY_NAME[name]) for name in ("F32", "F16", "BF16", "MXFP4", "TQ2_0", "IQ3_S"))
