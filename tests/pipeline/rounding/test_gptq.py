"""Tensors rounded with error feedback: better than ggml's where it says so, ggml's own elsewhere, and never a broken block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from agent.gguf.types import TYPES_BY_NAME
from pipeline.format import ggml
from pipeline.format.ggml import Floats
from pipeline.rounding.blocks import FORMATS, pack, values
from pipeline.rounding.descent import descend
from pipeline.rounding.encoder import summary
from pipeline.rounding.feedback import round_with_feedback, to_blocks
from pipeline.rounding.gptq import GptqEncoder
from pipeline.rounding.moments import column_order, moment, output_error
from pipeline.rounding.search import nearest

COLUMNS = 256


@dataclass(frozen=True)
class Named:
    name: str


class FakeStatistics:
    """Second moments of a text that the test made up."""

    def __init__(self, folds: dict[str, list[tuple[Floats, int]]]) -> None:
        self.folds = folds  # A and B -> one for each matrix

    def check(self, shapes: object) -> None:
        """It fits any model."""

    def input_of(self, name: str) -> Named | None:
        return Named("blk.0.attn_q.weight") if "unknown" not in name else None

    def hessian(self, name: str, fold: Literal["A", "B"] | None = None, matrix: int = 0) -> tuple[Floats, int] | None:
        assert fold is not None
        return self.folds[fold][matrix]


def activations(tokens: int, seed: int, columns: int = COLUMNS) -> Floats:
    """Inputs whose columns go together, as those of a model do, some of them large."""
    mix = np.random.default_rng(0).standard_normal((24, columns)).astype(np.float32)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((tokens, 24)).astype(np.float32) @ mix + rng.standard_normal((tokens, columns)).astype(np.float32)
    x[:, ::97] *= 8
    return x


def statistics(tokens: int = 768) -> FakeStatistics:
    folds = {fold: activations(tokens, seed) for fold, seed in (("A", 1), ("B", 2))}
    return FakeStatistics({fold: [(x.T @ x, tokens)] for fold, x in folds.items()})


def weights_like(rows: int = 32, columns: int = COLUMNS) -> Floats:
    return np.random.default_rng(5).standard_normal((rows, columns)).astype(np.float32) * np.float32(0.02)


def unseen(weights: Floats, raw: ggml.Bytes, name: str) -> float:
    x = activations(1024, 3)
    return output_error(weights - ggml.to_float(raw, TYPES_BY_NAME[name], COLUMNS), x.T @ x)


@pytest.mark.parametrize("name", FORMATS)
def test_feedback_beats_ggml_on_activations_that_nobody_saw(name: str) -> None:
    kind, weights, known = TYPES_BY_NAME[name], weights_like(), statistics()
    encoder = GptqEncoder(known, threads=2)
    raw = encoder.encode("blk.0.attn_q.weight", weights, kind)
    assert raw is not None
    assert raw.shape == (32, kind.row_size(COLUMNS))
    assert ggml.valid(raw, kind)
    both = known.folds["A"][0][0] + known.folds["B"][0][0]
    plain = ggml.quantize(weights, kind, np.ascontiguousarray(np.diagonal(both) / 1536))
    assert unseen(weights, raw, name) < 0.9 * unseen(weights, plain, name)
    decision = encoder.decisions["blk.0.attn_q.weight"]
    assert (decision.method, decision.type) == ("gptq", name)
    assert decision.error is not None
    assert decision.ggml_error is not None
    assert decision.error < decision.ggml_error
    assert "1 of 1 tensors" in summary([decision])[0]


def test_the_same_bytes_with_any_number_of_threads() -> None:
    weights, kind = weights_like(rows=500, columns=COLUMNS), TYPES_BY_NAME["IQ4_NL"]
    one, three = (GptqEncoder(statistics(), threads=n).encode("q", weights, kind) for n in (1, 3))
    assert one is not None
    assert np.array_equal(one, three)


def test_ggml_rounds_where_the_text_says_nothing_about_the_next() -> None:
    """A fold that contradicts the other: whatever was learned on A is wrong on B."""
    a, b = activations(600, 1), np.random.default_rng(2).standard_normal((600, COLUMNS)).astype(np.float32)
    a[:, :] = a @ np.diag(np.where(np.arange(COLUMNS) % 2, 1, 1e-3)).astype(np.float32)
    b[:, 1::2] *= 1e-3
    encoder = GptqEncoder(FakeStatistics({"A": [(a.T @ a, 600)], "B": [(b.T @ b, 600)]}), threads=1)
    assert encoder.encode("q", weights_like(), TYPES_BY_NAME["Q8_0"]) is None or encoder.decisions["q"].method == "gptq"
    few = GptqEncoder(FakeStatistics({"A": [(a.T @ a, 5)], "B": [(b.T @ b, 5)]}), threads=1)
    assert few.encode("q", weights_like(), TYPES_BY_NAME["Q4_0"]) is None
    assert few.decisions["q"].method == "ggml"


@pytest.mark.parametrize("broken", ["nan", "zero", "infinite"])
def test_a_broken_second_moment_leaves_the_tensor_to_ggml(broken: str) -> None:
    matrix = np.zeros((COLUMNS, COLUMNS), np.float32)
    matrix[0, 0] = {"nan": np.nan, "zero": 0, "infinite": np.inf}[broken]
    encoder = GptqEncoder(FakeStatistics({fold: [(matrix, 500)] for fold in "AB"}), threads=1)
    assert encoder.encode("q", weights_like(), TYPES_BY_NAME["Q4_0"]) is None


@pytest.mark.parametrize("name", ["Q4_0", "IQ4_NL", "Q4_K", "Q6_K"])
def test_columns_that_no_token_used_and_fewer_tokens_than_columns_are_safe(name: str) -> None:
    x = activations(100, 1)
    x[:, 32:96] = 0
    y = activations(100, 2)
    y[:, 32:96] = 0
    encoder = GptqEncoder(FakeStatistics({"A": [(x.T @ x, 100)], "B": [(y.T @ y, 100)]}), threads=1)
    weights = weights_like(rows=5)
    weights[2] = 0
    weights[:, 128:160] = 0
    raw = encoder.encode("q", weights, TYPES_BY_NAME[name])
    assert raw is not None
    back = ggml.to_float(raw, TYPES_BY_NAME[name], COLUMNS)
    assert np.isfinite(back).all()
    assert not back[2].any()
    assert np.abs(back - weights).max() < 0.05


def test_experts_have_second_moments_of_their_own() -> None:
    good = statistics().folds
    folds = {fold: [good[fold][0], (np.zeros_like(good[fold][0][0]), 0)] for fold in "AB"}
    weights = np.stack([weights_like(), weights_like()])
    kind = TYPES_BY_NAME["Q4_0"]
    encoder = GptqEncoder(FakeStatistics(folds), threads=2)
    raw = encoder.encode("blk.0.ffn_up_exps.weight", weights, kind)
    assert raw is not None
    assert np.array_equal(raw[32:], ggml.quantize(weights[1], kind)), "nothing is known of the second"
    assert not np.array_equal(raw[:32], raw[32:])


def test_errors_fall_with_the_bits_and_leave_out_what_does_not_fit() -> None:
    kinds = [TYPES_BY_NAME[name] for name in ("Q4_0", "IQ4_NL", "Q5_0", "Q6_K", "Q8_0", "F16")]
    errors = GptqEncoder(statistics(), threads=1).errors("q", weights_like(), kinds)
    assert list(errors) == [kind.name for kind in kinds]
    assert errors["Q4_0"] > errors["IQ4_NL"] > errors["Q5_0"] > errors["Q6_K"] > errors["Q8_0"] > errors["F16"]
    assert GptqEncoder(statistics(), threads=1).errors("unknown", weights_like(), kinds) == {}


def test_the_order_keeps_blocks_and_groups_together() -> None:
    form = FORMATS["Q6_K"]
    order = column_order(np.random.default_rng(0).random(1024), form)
    assert sorted(order) == list(range(1024))
    assert all(len(set(part // 256)) == 1 for part in order.reshape(-1, 256))
    assert all(len(set(part // 16)) == 1 for part in order.reshape(-1, 16))


def test_the_factors_multiply_to_the_second_moment() -> None:
    x = activations(300, 1)
    known = moment(x.T @ x, 0.3, FORMATS["Q4_0"])
    upper = known.follow.T.astype(np.float64)
    assert np.allclose((upper * known.cost) @ upper.T, known.matrix, rtol=1e-4, atol=1e-5 * np.diagonal(known.matrix).max())
    assert np.array_equal(np.diagonal(upper), np.ones(COLUMNS))
    assert not np.tril(upper, -1).any()


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_K"])
def test_descent_never_makes_it_worse(name: str) -> None:
    form, weights = FORMATS[name], weights_like(rows=8)
    x = activations(600, 1)
    known = moment(x.T @ x, 0.2, form)
    done = round_with_feedback(weights, known, form)
    errors = []
    for sweeps in (0, 1, 2):
        descend(done, known, form, sweeps)
        blocks = to_blocks(done, known, form)
        assert np.array_equal(ggml.to_float(pack(blocks, form), form.kind, COLUMNS), values(blocks, form))
        difference = (weights - values(blocks, form))[:, known.order]
        errors.append(output_error(difference, known.matrix))
    assert errors[0] > errors[1] > errors[2]


def test_the_nearest_level_of_iq4_nl_is_the_nearest() -> None:
    levels = FORMATS["IQ4_NL"].levels
    x = np.random.default_rng(0).uniform(-140, 140, 2000).astype(np.float32)
    expected = np.abs(x[:, None] - levels).min(axis=1)
    assert np.allclose(np.abs(nearest(x.copy(), FORMATS["IQ4_NL"]) - x), expected)
