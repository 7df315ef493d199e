"""The worked examples of the documentation, computed by other people's code."""

from __future__ import annotations

import warnings
from pathlib import Path

import gguf
import numpy as np
import pytest

from agent.gguf.types import TYPES_BY_NAME
from pipeline.format import ggml
from tests.fixtures.later import later

torch = later("torch")
pruning = later("torch.nn.utils.prune")
scipy = later("scipy")
loss = later("pipeline.distill.loss")

DOCS = Path(__file__).parents[3] / "docs"
P, Q = np.array([0.7, 0.2, 0.1]), np.array([0.5, 0.3, 0.2])
EVEN = ((np.arange(32) - 10) / 20).astype(np.float32)[None]
NORMAL = np.random.default_rng(0).standard_normal((1024, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def text() -> str:
    """The chapter, without the breaks of its lines."""
    whole = " ".join((DOCS / "compression.md").read_text("utf-8").split())
    assert "The mathematics, with small numbers" in whole
    return whole


def has(text: str, *words: str) -> None:
    for word in words:
        assert word in text, word


def test_the_threshold_of_magnitude_pruning(text: str) -> None:
    weights = torch.tensor([[0.80, -0.10, 0.40, -0.50], [-0.06, 0.20, 0.03, -0.90]])
    layer = torch.nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(weights)
    pruning.l1_unstructured(layer, "weight", amount=0.5)
    kept = layer.weight.detach()
    magnitudes = sorted(weights.abs().flatten().tolist())
    threshold = magnitudes[3]
    assert torch.equal(kept != 0, weights.abs() > threshold)
    shown = [f"{value:.2f}" for value in magnitudes]
    has(text, f"{', '.join(shown[:3])}, **{shown[3]}**, {', '.join(shown[4:])}", f"the fourth, {threshold:.2f}")
    rows = [" ".join(f"{value + 0.0:.2f}" for value in row) for row in kept.tolist()]
    has(text, f"``` {rows[0]} {rows[1]} ```")
    before, after = float(weights.square().sum()), float(kept.square().sum())
    has(text, f"{after / before:.1%}".replace("%", " %"), f"({after:.2f} of {before:.4f})")
    pairs = weights.abs().topk(2, dim=1).indices
    pattern = torch.zeros_like(weights).scatter(1, pairs, 1)
    assert sorted(weights[pattern.bool()].tolist()) == pytest.approx([-0.9, -0.5, 0.2, 0.8])
    has(text, f"{float((weights * pattern).square().sum()) / before:.1%}".replace("%", " %"))


def test_the_divergences_of_the_example(text: str) -> None:
    forward, reverse, js = (
        float(scipy.stats.entropy(P, Q)),
        float(scipy.stats.entropy(Q, P)),
        float(scipy.spatial.distance.jensenshannon(P, Q) ** 2),
    )
    for i, (one, other) in enumerate(zip(P * np.log(P / Q), Q * np.log(Q / P), strict=True)):
        has(text, f"| {i + 1} | {P[i]} | {Q[i]} | {one:.4f} | {other:.4f} |")
    has(text, f"**{forward:.4f}** | **{reverse:.4f}**", f"{forward:.4f} nats ({scipy.stats.entropy(P, Q, base=2):.4f} bits)")
    has(text, f"M = (P + Q) / 2. Here {js:.4f}", f"ln 2 = {np.log(2):.4f}")
    by_torch = torch.nn.functional.kl_div(torch.tensor(Q).log(), torch.tensor(P), reduction="sum")
    assert float(by_torch) == pytest.approx(forward)
    for kind, expected in (("forward", forward), ("reverse", reverse), ("js", js)):
        ours = loss.divergence(torch.tensor(P).log()[None], torch.tensor(Q).log()[None], kind)
        assert float(ours) == pytest.approx(expected)


def test_the_gradient_at_temperatures(text: str) -> None:
    teacher, start = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for temperature in (1, 2, 4, 8):
        student = start.clone().requires_grad_()
        target = (teacher / temperature).softmax(0)
        apart = torch.nn.functional.kl_div((student / temperature).log_softmax(0), target, reduction="sum")
        (slope,) = torch.autograd.grad(apart, student)
        cells = [_row(target), f"{float(apart.detach()):.4f}", _row(slope), _row(temperature**2 * slope)]
        has(text, f"| {temperature} | {' | '.join(cells)} |")
        ours = loss.distilled((teacher / temperature).log_softmax(0)[None], student[None], None, temperature, "forward")
        (scaled,) = torch.autograd.grad(ours.sum(), student)
        torch.testing.assert_close(scaled, temperature**2 * slope)
    limit = ((start - start.mean()) - (teacher - teacher.mean())) / 3
    has(text, f"here ({_row(limit)})")


def _row(values: torch.Tensor) -> str:
    return ", ".join(f"{value + 0.0:.3f}" for value in values.detach().round(decimals=3).tolist())


def test_affine_eight_bits(text: str) -> None:
    values = torch.tensor([-1.0, 0.0, 0.3, 0.5, 1.5])
    scale, zero = 2.5 / 255, 102
    assert zero == round(1.0 / scale)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch moves it elsewhere
        stored = torch.quantize_per_tensor(values, scale, zero, torch.quint8)
    by_hand = np.clip(np.round(values.numpy() / scale) + zero, 0, 255)
    assert stored.int_repr().tolist() == by_hand.tolist()
    back = stored.dequantize()
    has(text, f"2.5 / 255 = {scale:.7f} and the zero point {zero}")
    has(text, "| q | " + " | ".join(map(str, stored.int_repr().tolist())) + " |")
    has(text, "| x' | " + " | ".join(f"{value:.4f}" for value in back.tolist()) + " |", f"half a scale ({scale / 2:.4f})")
    assert float((back - values).abs().max()) <= scale / 2


def test_the_errors_of_blocks(text: str) -> None:
    for name in ("Q8_0", "Q4_0", "Q4_1", "IQ4_NL"):
        kind = TYPES_BY_NAME[name]
        errors = []
        for values in (EVEN, NORMAL):
            raw = ggml.quantize(values, kind)
            back = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[name])  # another reader than ggml's
            assert np.array_equal(back, ggml.to_float(raw, kind, 32))
            errors.append(float(np.sqrt(np.mean((back - values).astype(np.float64) ** 2))))
        has(text, f"| {name} | {errors[0]:.4f} | {errors[1]:.4f} |", f"| {name} | {kind.bits_per_weight:.1f} |")


def _half(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).astype(np.float32)


def test_the_formulas_of_blocks() -> None:
    """Written straight from the table: what ggml stores reads back as these."""
    x = NORMAL
    d = np.abs(x).max(1, keepdims=True) / 127
    q8 = np.sign(x / d) * np.floor(np.abs(x / d) + 0.5) * _half(d)
    largest = np.take_along_axis(x, np.abs(x).argmax(1)[:, None], 1)
    d = largest / -8
    q4 = (np.clip(np.trunc(x / d + 8.5), 0, 15) - 8) * _half(d)
    low, d = x.min(1, keepdims=True), (x.max(1, keepdims=True) - x.min(1, keepdims=True)) / 15
    q41 = np.clip(np.trunc((x - low) / d + 0.5), 0, 15) * _half(d) + _half(low)
    for name, expected in (("Q8_0", q8), ("Q4_0", q4), ("Q4_1", q41)):
        kind = TYPES_BY_NAME[name]
        held = ggml.to_float(ggml.quantize(x, kind), kind, 32)
        # A weight that lies between two steps may fall to either, where the reciprocal of a scale is rounded.
        assert np.isclose(held, expected, atol=1e-6).mean() > 0.999, name
    table = gguf.quants.IQ4_NL.kvalues
    raw = ggml.quantize(x, TYPES_BY_NAME["IQ4_NL"])
    d = np.ascontiguousarray(raw[:, :2]).view(np.float16).astype(np.float32)
    held = ggml.to_float(raw, TYPES_BY_NAME["IQ4_NL"], 32)
    assert np.isin(np.round(held / d), table).all()
