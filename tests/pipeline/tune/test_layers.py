"""Layers of codes and scales: they compute what the dense matrix would, and their gradients are those of torch itself."""

from __future__ import annotations

import numpy as np
import pytest

from agent.gguf.types import TYPES_BY_NAME
from pipeline.format import ggml
from pipeline.tune.scales import split
from tests.fixtures.later import later

torch = later("torch")
layers = later("pipeline.tune.layers")

ROWS, LENGTH = 6, 256
ORDER = np.random.default_rng(1).permutation(ROWS)
FACTORS = np.linspace(0.5, 2, ROWS).astype(np.float32)


def weights(kind: str) -> tuple[layers.ScaledWeights, torch.Tensor]:
    """The layer's weights, and the dense matrix that they stand for."""
    values = np.random.default_rng(0).normal(0.01, 0.02, (ROWS, LENGTH)).astype(np.float32)
    raw, of = ggml.quantize(values, TYPES_BY_NAME[kind]), TYPES_BY_NAME[kind]
    dense = ggml.to_float(raw, of, LENGTH) / FACTORS[:, None]
    return layers.ScaledWeights(split(raw, of, LENGTH), ORDER, FACTORS), torch.from_numpy(dense[ORDER])


def dense_again(held: layers.ScaledWeights) -> torch.Tensor:
    """The matrix as plain operations of torch, which differentiates them."""
    n, blocks = held.scales.shape
    scales = held.scales * (1 + held.scale) / held.divisor
    out = (held.codes.float().view(n, blocks, -1) * scales[:, :, None]).view(n, -1)
    if held.has_mins:
        mins = held.mins * (1 + held.scale) * (1 + held.min) / held.divisor
        steps = (held.offsets.view(n, blocks, -1) * mins[:, :, None]).view(n, -1)
        out = out + steps.repeat_interleave(LENGTH // held.offsets.shape[1], 1)
    return out


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "IQ4_NL", "Q8_0", "Q4_K", "Q6_K"])
def test_a_linear_layer_computes_and_learns_as_the_dense_one(kind: str) -> None:
    held, dense = weights(kind)
    inputs = torch.randn(2, 3, LENGTH, generator=torch.Generator().manual_seed(0), requires_grad=True)
    out = layers.ScaledLinear(held, torch.ones(ROWS))(inputs)
    torch.testing.assert_close(out, inputs @ dense.T + 1, rtol=1e-4, atol=1e-5)
    (out**2).sum().backward()
    learned = list(held.parameters())
    ours = [inputs.grad, *(p.grad for p in learned)]
    theirs = torch.autograd.grad(((inputs @ dense_again(held).T + 1) ** 2).sum(), [inputs, *learned])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K"])
def test_an_embedding_learns_from_the_rows_that_were_looked_up(kind: str) -> None:
    held, dense = weights(kind)
    ids = torch.tensor([[1, 4, 1]])
    out = layers.ScaledEmbedding(held, 3.0)(ids)
    torch.testing.assert_close(out, 3 * dense[ids], rtol=1e-4, atol=1e-6)
    (out**2).sum().backward()
    learned = list(held.parameters())
    theirs = torch.autograd.grad(((3 * dense_again(held)[ids]) ** 2).sum(), learned)
    for p, other in zip(learned, theirs, strict=True):
        torch.testing.assert_close(p.grad, other, rtol=1e-3, atol=1e-4)
    assert held.scale.grad is not None
    assert not held.scale.grad[0].any()


def test_what_is_stored_is_float16_in_the_order_of_the_file() -> None:
    held, _ = weights("Q4_1")
    with torch.no_grad():
        held.scale += 0.01
    scales, mins = held.learned()
    stored = held.stored(scales.detach())
    np.testing.assert_array_equal(stored, stored.astype(np.float16))
    np.testing.assert_array_equal(stored[ORDER], scales.detach().numpy())
    assert mins is not None
